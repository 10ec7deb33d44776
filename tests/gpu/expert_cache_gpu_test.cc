// The expert cache with a GPU's streams and memory: records that come over the link while others
// are read, evicted and asked for again are whole whenever a lease yields them.
//
// PREGATE_SEED sets the seed, PREGATE_SECONDS how long the test goes on at least.
#include <cstdlib>
#include <cstring>
#include <random>
#include <thread>

#include "core/base/thread.h"
#include "core/expert/expert_cache.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/gpu/gpu.h"

namespace pregate {
namespace {

constexpr uint32_t kLayers = 4;
constexpr uint32_t kExperts = 16;
constexpr uint64_t kRecord = 3 << 20;  // three pieces of the copy stream
constexpr int kReaders = 3;

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* const value = std::getenv(name);
  return value == nullptr ? otherwise : std::stoull(value);
}

// Records in pinned memory, each of 8-byte words that tell the expert and their place. A third of
// them come from another thread, as from a disk.
class PinnedSource final : public RecordSource {
 public:
  explicit PinnedSource(Backend& backend) {
    header_.num_layers = kLayers;
    header_.num_experts = kExperts;
    header_.record_bytes = kRecord;
    for (uint32_t i = 0; i < kLayers * kExperts; ++i) {
      absl::StatusOr<Buffer> record = backend.Allocate(MemoryKind::kPinned, kRecord);
      EXPECT_TRUE(record.ok()) << record.status();
      auto* const words = reinterpret_cast<uint64_t*>(record->data());
      for (uint64_t j = 0; j < kRecord / 8; ++j) words[j] = Word(i, j);
      records_.push_back(*std::move(record));
    }
  }
  static uint64_t Word(uint32_t flat, uint64_t place) { return (uint64_t{flat} << 32) | place; }

  const ExpertPackHeader& header() const override { return header_; }

  void Fetch(ExpertId id, bool /*is_urgent*/, Done done) override {
    const Buffer& record = records_[id.Flat(kExperts)];
    const bool from_disk = id.Flat(kExperts) % 3 == 0;
    const auto answer = [&record, from_disk, done] {
      done(HostRecord({record.data(), record.size()}, from_disk, nullptr));
    };
    if (!from_disk || !disk_.TryRun(answer)) answer();
  }
  void VisitStats(StatsVisitor&) const override {}

 private:
  ExpertPackHeader header_;
  std::vector<Buffer> records_;
  ThreadPool disk_{"disk", 2, 1000};
};

// Looks up experts as layers do, and copies what each lease yields back to the host.
class Reader {
 public:
  Reader(Backend& backend, ExpertCache& cache, uint64_t seed) : cache_(cache), random_(seed) {
    stream_ = *backend.CreateStream("reader");
    seen_ = *backend.Allocate(MemoryKind::kPinned, kExperts * kRecord);
  }

  // OK, or what was wrong.
  absl::Status Step(uint32_t layer) {
    std::vector<ExpertId> ids;
    for (uint32_t expert = 0; expert < kExperts; ++expert) {
      if (random_() % 4 == 0) ids.push_back({.layer = layer, .expert = expert});
    }
    if (ids.empty()) return absl::OkStatus();
    std::memset(seen_.data(), 0xff, ids.size() * kRecord);
    {
      absl::StatusOr<ExpertLease> lease = cache_.Acquire(ids, *stream_);
      if (!lease.ok()) return lease.status();
      Hint((layer + 1) % kLayers);
      while (const std::optional<ExpertLease::Expert> expert = lease->Next()) {
        if (!expert->status.ok()) return expert->status;
        stream_->CopyAsync(seen_.data() + expert->index * kRecord, expert->record, kRecord);
      }
    }
    if (absl::Status done = stream_->Synchronize(); !done.ok()) return done;
    for (size_t i = 0; i < ids.size(); ++i) {
      const auto* const words = reinterpret_cast<const uint64_t*>(seen_.data() + i * kRecord);
      for (uint64_t j = 0; j < kRecord / 8; ++j) {
        if (words[j] == PinnedSource::Word(ids[i].Flat(kExperts), j)) continue;
        return absl::DataLossError("expert " + ToString(ids[i]) + ": word " + std::to_string(j));
      }
    }
    return absl::OkStatus();
  }

 private:
  void Hint(uint32_t layer) {
    std::vector<ExpertHint> hints;
    for (size_t i = 0; i < 4; ++i) {
      hints.push_back(
          {.id = {.layer = layer, .expert = static_cast<uint32_t>(random_() % kExperts)},
           .probability = static_cast<float>(random_() % 101) / 100});
    }
    cache_.Hint(hints);
  }

  ExpertCache& cache_;
  std::mt19937_64 random_;
  std::unique_ptr<Stream> stream_;
  Buffer seen_;
};

TEST(ExpertCacheGpu, EveryRecordIsWholeUnderEviction) {
  const std::unique_ptr<Backend> gpu = MakeGpu();
  if (gpu == nullptr) GTEST_SKIP() << CreateCudaBackend(0).status();
  const uint64_t seed = FromEnvironment("PREGATE_SEED", std::random_device()());
  SCOPED_TRACE(testing::Message() << "PREGATE_SEED=" << seed);
  PinnedSource source(*gpu);
  const RealClock clock;
  ExpertCache::Options options;
  options.num_slots = 8;
  options.max_hinted_loads = 4;
  auto cache = ExpertCache::Create({&source}, *gpu, clock, options);
  ASSERT_TRUE(cache.ok()) << cache.status();
  const TimePoint end =
      clock.Now() + FromSeconds(static_cast<double>(FromEnvironment("PREGATE_SECONDS", 0)));
  std::vector<std::thread> readers;
  for (int i = 0; i < kReaders; ++i) {
    readers.emplace_back([&, i] {
      Reader reader(*gpu, **cache, seed + i);
      for (uint32_t step = 0; step < 300 || clock.Now() < end; ++step) {
        const absl::Status status = reader.Step(step % kLayers);
        ASSERT_TRUE(status.ok()) << status << ", reader " << i << ", step " << step;
        if (i == 0 && step % 40 == 0) {
          ASSERT_TRUE((*cache)->SetNumSlots(4 + step / 40 * 5 % 16).ok());
        }
        const absl::Status valid = (*cache)->Validate();
        ASSERT_TRUE(valid.ok()) << valid;
      }
    });
  }
  for (std::thread& reader : readers) reader.join();
}

}  // namespace
}  // namespace pregate
