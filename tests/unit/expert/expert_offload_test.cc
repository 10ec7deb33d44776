// What an operator, and the device's other users, change while steps run.
#include "core/expert/expert_offload.h"

#include <atomic>
#include <deque>
#include <utility>

#include "core/device/cpu_backend.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/fake_clock.h"
#include "tests/support/recorded_stats.h"
#include "tests/support/temp_folder.h"
#include "tests/support/test_pack.h"

namespace pregate {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kRecord = 4096;

// A stream whose copies lose a bit.
class LossyStream final : public Stream {
 public:
  explicit LossyStream(std::unique_ptr<Stream> stream) : stream_(std::move(stream)) {}
  void CopyAsync(std::byte* to, const std::byte* from, size_t bytes) override {
    sent_.emplace_back(from, from + bytes);
    sent_.back()[bytes / 2] ^= std::byte{4};
    stream_->CopyAsync(to, sent_.back().data(), bytes);
  }
  Event Record() override { return stream_->Record(); }
  void Wait(const Event& event) override { stream_->Wait(event); }
  absl::Status Synchronize() override { return stream_->Synchronize(); }

 private:
  std::deque<std::vector<std::byte>> sent_;  // outlives the copies
  const std::unique_ptr<Stream> stream_;
};

// The CPU, whose memory others take as the test says, 1000 records in all, and whose copies may
// lose bits.
class ScarceBackend final : public Backend {
 public:
  ScarceBackend(const std::atomic<uint64_t>& free_records, bool loses_bits)
      : free_records_(free_records), loses_bits_(loses_bits) {}

  absl::StatusOr<Buffer> Allocate(MemoryKind kind, size_t bytes) override {
    return cpu_.Allocate(kind, bytes);
  }
  absl::StatusOr<Buffer> Reserve(size_t bytes) override { return cpu_.Reserve(bytes); }
  absl::Status Commit(const Buffer& reserved, size_t offset, size_t bytes) override {
    return cpu_.Commit(reserved, offset, bytes);
  }
  absl::Status Decommit(const Buffer& reserved, size_t offset, size_t bytes) override {
    return cpu_.Decommit(reserved, offset, bytes);
  }
  absl::StatusOr<std::unique_ptr<Stream>> CreateStream(const std::string& name) override {
    absl::StatusOr<std::unique_ptr<Stream>> stream = cpu_.CreateStream(name);
    if (!stream.ok() || !loses_bits_) return stream;
    return std::make_unique<LossyStream>(*std::move(stream));
  }
  bool is_host() const override { return true; }
  MemoryInfo memory() const override {
    return {.total_bytes = 1000 * kRecord, .free_bytes = free_records_ * kRecord};
  }

 private:
  CpuBackend cpu_;
  const std::atomic<uint64_t>& free_records_;
  const bool loses_bits_;
};

// 8 layers of 16 experts, top-2.
class ExpertOffloadTest : public testing::Test {
 protected:
  ExpertOffloadTest() : logger_(LogLevel::kInfo, LogFormat::kText, [](const std::string&) {}) {}

  void Open(const std::string& strategy, const std::string& capacity) {
    ExpertPackHeader header;
    header.num_layers = 8;
    header.num_experts = 16;
    header.record_bytes = kRecord;
    header.properties = {{"codec", "none"}};
    absl::StatusOr<ExpertPack> pack =
        ExpertPack::Open(WriteTestPack(folder_ / "experts.pack", header));
    ASSERT_TRUE(pack.ok()) << pack.status();
    ExpertOffload::Options options;
    options.flags.memory_strategy = strategy;
    options.flags.capacity = capacity;
    options.flags.verify_slots = verify_slots_;
    options.flags.layer_metrics = layer_metrics_;
    options.model = {.name = "test", .num_layers = 8, .num_experts = 16, .experts_per_token = 2};
    options.slot_needs = {.num_layers = 8,
                          .num_experts = 16,
                          .experts_per_token = 2,
                          .slot_bytes = kRecord,
                          .budget_bytes = 100 * kRecord};
    absl::StatusOr<SlotPlan> slots = PlanSlots(strategy, capacity, options.slot_needs);
    ASSERT_TRUE(slots.ok()) << slots.status();
    options.slots = *std::move(slots);
    options.memory_period = {};
    std::vector<ExpertPack> packs;
    packs.push_back(*std::move(pack));
    absl::StatusOr<std::unique_ptr<ExpertOffload>> offload =
        ExpertOffload::Create(std::move(options),
                              std::move(packs),
                              std::make_unique<ScarceBackend>(free_records_, loses_bits_),
                              clock_,
                              logger_);
    ASSERT_TRUE(offload.ok()) << offload.status();
    offload_ = *std::move(offload);
  }

  uint32_t slots() const { return offload_->Read().cache.num_slots; }
  std::string strategy() const { return offload_->Read().memory_strategy; }
  void CheckMemory(int times) {
    for (int i = 0; i < times; ++i) offload_->CheckMemory();
  }

  const TempFolder folder_;
  std::atomic<uint64_t> free_records_{500};
  bool loses_bits_ = false;
  double verify_slots_ = 0;
  bool layer_metrics_ = false;
  FakeClock clock_;
  Logger logger_;
  std::unique_ptr<ExpertOffload> offload_;
};

// Of `count` leased experts, how many are said to be other than in host memory.
int CountDamaged(ExpertOffload& offload, uint32_t count) {
  int damaged = 0;
  CallerStream stream;
  for (uint32_t i = 0; i < count; ++i) {
    const std::vector<ExpertId> ids = {{.layer = i % 8, .expert = i % 16}};
    absl::StatusOr<ExpertLease> lease = offload.Acquire(ids, stream);
    EXPECT_TRUE(lease.ok()) << lease.status();
    const std::optional<ExpertLease::Expert> expert = lease->Next();
    const absl::Status status = offload.Verify(ids.front(), *expert, stream);
    if (status.ok()) continue;
    ++damaged;
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
    EXPECT_EQ(status.message(),
              "expert " + ToString(ids.front()) +
                  ": its slot does not hold the bytes that were copied into it");
  }
  return damaged;
}

TEST_F(ExpertOffloadTest, ShowsItsLayersWhereThatIsAskedFor) {
  Open("auto", "");
  RecordedStats without;
  offload_->VisitStats(without);
  EXPECT_EQ(without.values().count("expert_layer_hits_total{layer=\"0\"}"), 0u);

  layer_metrics_ = true;
  Open("auto", "");
  CallerStream stream;
  const std::vector<ExpertId> ids = {{.layer = 3, .expert = 1}, {.layer = 3, .expert = 2}};
  for (int step = 0; step < 2; ++step) {
    absl::StatusOr<ExpertLease> lease = offload_->Acquire(ids, stream);
    ASSERT_TRUE(lease.ok()) << lease.status();
    while (lease->Next().has_value()) {
    }
  }
  RecordedStats stats;
  offload_->VisitStats(stats);
  EXPECT_EQ(stats.value("expert_layer_hits_total{layer=\"3\"}"), 2);
  EXPECT_EQ(stats.value("expert_layer_late_hits_total{layer=\"3\"}"), 0);
  EXPECT_EQ(stats.value("expert_layer_misses_total{layer=\"3\"}"), 2);
  EXPECT_EQ(stats.value("expert_layer_misses_total{layer=\"0\"}"), 0);
  EXPECT_EQ(stats.value("speculation_enabled{layer=\"7\"}"), 0);
  EXPECT_EQ(stats.violation(), "");
}

TEST_F(ExpertOffloadTest, FindsWhatTheLinkLost) {
  loses_bits_ = true;
  verify_slots_ = 1;
  Open("auto", "");
  EXPECT_EQ(CountDamaged(*offload_, 32), 32);
}

TEST_F(ExpertOffloadTest, LooksAtTheShareThatWasAskedFor) {
  loses_bits_ = true;
  verify_slots_ = 0.25;
  Open("auto", "");
  EXPECT_EQ(CountDamaged(*offload_, 32), 8);
}

TEST_F(ExpertOffloadTest, AcceptsWhatIsWhole) {
  verify_slots_ = 1;
  Open("auto", "");
  EXPECT_EQ(CountDamaged(*offload_, 32), 0);
}

TEST_F(ExpertOffloadTest, GivesWayToOthersAndReturns) {
  Open("auto", "");
  EXPECT_EQ(slots(), 100u);
  CheckMemory(10);
  EXPECT_EQ(slots(), 100u);

  free_records_ = 15;  // 60 short of 7.5 %
  CheckMemory(1);
  free_records_ = 75;
  EXPECT_EQ(slots(), 40u);
  EXPECT_EQ(strategy(), "single_async");

  free_records_ = 500;
  CheckMemory(5);
  EXPECT_EQ(slots(), 100u);
}

TEST_F(ExpertOffloadTest, AutoStreamsWhileLessThanTwoLayersFit) {
  Open("auto", "");
  free_records_ = 0;
  CheckMemory(1);
  CheckMemory(1);
  free_records_ = 75;
  EXPECT_EQ(slots(), 1u);
  EXPECT_EQ(strategy(), "streaming");

  free_records_ = 500;
  CheckMemory(5);
  EXPECT_EQ(slots(), 100u);
  EXPECT_EQ(strategy(), "single_async");
}

TEST_F(ExpertOffloadTest, AnotherStrategyStaysWhatItIs) {
  Open("single_async", "");
  free_records_ = 0;
  CheckMemory(2);
  free_records_ = 75;
  EXPECT_EQ(slots(), 1u);
  EXPECT_EQ(strategy(), "single_async");
}

TEST_F(ExpertOffloadTest, ACapacityThatWasAskedForComesBackAsSuch) {
  Open("auto", "50");
  free_records_ = 45;  // 30 short
  CheckMemory(1);
  free_records_ = 75;
  EXPECT_EQ(slots(), 20u);
  EXPECT_THAT(std::string(offload_->SetCapacity("60").message()), HasSubstr("only 20 fit"));
  free_records_ = 500;
  CheckMemory(5);
  EXPECT_EQ(slots(), 50u);
}

TEST_F(ExpertOffloadTest, WithoutSlotsThereIsNothingToGive) {
  Open("cpu_offload", "");
  free_records_ = 0;
  CheckMemory(3);
  EXPECT_EQ(strategy(), "cpu_offload");
}

}  // namespace
}  // namespace pregate
