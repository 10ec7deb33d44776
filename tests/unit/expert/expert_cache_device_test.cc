// The expert cache with kernels that run long after they were given to their stream.
#include <atomic>
#include <thread>

#include "core/expert/expert_cache.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/manual_backend.h"

namespace pregate {
namespace {

using ::testing::IsEmpty;

constexpr uint64_t kRecord = uint64_t{3} << 19;  // more than half of what memory goes in

// One layer; counts the records that came back.
class CountingSource final : public RecordSource {
 public:
  CountingSource() {
    header_.num_layers = 1;
    header_.num_experts = 4;
    header_.record_bytes = kRecord;
  }
  const ExpertPackHeader& header() const override { return header_; }
  void Fetch(ExpertId /*id*/, bool /*is_urgent*/, Done done) override {
    done(HostRecord(bytes_, /*from_disk=*/false, [this] { ++num_returned_; }));
  }
  void VisitStats(StatsVisitor&) const override {}
  int num_returned() const { return num_returned_; }

 private:
  ExpertPackHeader header_;
  const std::vector<std::byte> bytes_ = std::vector<std::byte>(kRecord);
  std::atomic<int> num_returned_ = 0;
};

class ExpertCacheDeviceTest : public testing::Test {
 protected:
  void Open(const ExpertCache::Options& options) {
    absl::StatusOr<std::unique_ptr<ExpertCache>> cache =
        ExpertCache::Create({&source_}, device_, clock_, options);
    ASSERT_TRUE(cache.ok()) << cache.status();
    cache_ = *std::move(cache);
  }
  ExpertLease Acquire(uint32_t expert, ManualStream& stream) {
    const std::vector<ExpertId> ids = {{.layer = 0, .expert = expert}};
    absl::StatusOr<ExpertLease> lease = cache_->Acquire(ids, stream);
    EXPECT_TRUE(lease.ok()) << lease.status();
    return *std::move(lease);
  }
  // Gives the stream a kernel for the lease's expert.
  static void Use(ExpertLease& lease, ManualStream& stream) {
    const std::optional<ExpertLease::Expert> expert = lease.Next();
    ASSERT_TRUE(expert.has_value());
    ASSERT_TRUE(expert->status.ok()) << expert->status;
    stream.Kernel("mlp", {{.data = expert->record, .bytes = kRecord}}, {});
  }

  ManualBackend device_;
  CountingSource source_;
  const RealClock clock_;
  std::unique_ptr<ManualStream> first_ = device_.MakeStream("first");
  std::unique_ptr<ManualStream> second_ = device_.MakeStream("second");
  std::unique_ptr<ExpertCache> cache_;
};

TEST_F(ExpertCacheDeviceTest, ACopyWaitsForEveryStreamThatUsesItsSlot) {
  ExpertCache::Options options;
  options.num_slots = 1;
  Open(options);
  {
    ExpertLease one = Acquire(0, *first_);
    ExpertLease other = Acquire(0, *second_);
    Use(one, *first_);
    Use(other, *second_);
  }
  {
    ExpertLease next = Acquire(1, *first_);
    Use(next, *first_);
  }
  EXPECT_THAT(device_.checker().hazards(), IsEmpty()) << device_.checker().status();
}

TEST_F(ExpertCacheDeviceTest, ACopyWaitsForAllOfAGroup) {
  ExpertCache::Options options;
  options.num_slots = 2;
  Open(options);
  for (const uint32_t expert : {0u, 1u}) {
    ExpertLease lease = Acquire(expert, *first_);
    Use(lease, *first_);
  }
  while (cache_->Read().slots.ready < 2) device_.RunUntilIdle(1);
  const std::vector<ExpertId> resident = {{.layer = 0, .expert = 0}, {.layer = 0, .expert = 1}};
  {
    ExpertLease lease = *cache_->Acquire(resident, *second_);
    const absl::Span<const ExpertLease::Expert> group = lease.NextGroup(4);
    ASSERT_EQ(group.size(), 2u);
    for (const ExpertLease::Expert& expert : group) {
      second_->Kernel("mlp", {{.data = expert.record, .bytes = kRecord}}, {});
    }
  }
  for (const uint32_t expert : {2u, 3u}) {
    ExpertLease lease = Acquire(expert, *first_);
    Use(lease, *first_);
  }
  EXPECT_THAT(device_.checker().hazards(), IsEmpty()) << device_.checker().status();
}

TEST_F(ExpertCacheDeviceTest, MemoryGoesOnlyOnceEveryStreamHasUsedIt) {
  ExpertCache::Options options;
  options.num_slots = 2;
  Open(options);
  const uint64_t all_free = device_.memory().free_bytes;
  // The second slot is in use twice.
  ExpertLease lease = Acquire(0, *first_);
  ExpertLease one = Acquire(1, *first_);
  ExpertLease other = Acquire(1, *second_);
  Use(one, *first_);
  Use(other, *second_);
  ASSERT_TRUE(cache_->SetNumSlots(1).ok());
  { const ExpertLease end = std::move(one); }
  { const ExpertLease end = std::move(other); }
  while (device_.memory().free_bytes == all_free) std::this_thread::yield();
  EXPECT_THAT(device_.checker().hazards(), IsEmpty()) << device_.checker().status();
}

TEST_F(ExpertCacheDeviceTest, UnifiedMemoryStaysUntilItsKernelHasRun) {
  device_.SetWaiting(ManualBackend::Waiting::kBlocks);
  ExpertCache::Options options;
  options.num_slots = 1;
  options.is_unified = true;
  Open(options);
  {
    ExpertLease lease = Acquire(2, *first_);
    Use(lease, *first_);
    EXPECT_FALSE(lease.Next().has_value());
  }
  EXPECT_EQ(source_.num_returned(), 0);
  while (first_->Step()) {
  }
  while (source_.num_returned() == 0) std::this_thread::yield();
  EXPECT_EQ(source_.num_returned(), 1);
  device_.SetWaiting(ManualBackend::Waiting::kRunsWork);  // the cache's end waits for its stream
}

TEST_F(ExpertCacheDeviceTest, UnifiedMemoryThatWasNotYieldedGoesBackAtOnce) {
  ExpertCache::Options options;
  options.num_slots = 1;
  options.is_unified = true;
  Open(options);
  { const ExpertLease lease = Acquire(2, *first_); }
  EXPECT_EQ(source_.num_returned(), 1);
}

}  // namespace
}  // namespace pregate
