// The expert cache under random interleavings: whatever is looked up, hinted, failed or changed, a
// lease yields each of its experts once, with the right bytes, and every invariant holds.
//
// PREGATE_SEED sets the seed (it is printed), PREGATE_SECONDS how long each test goes on.
#include <atomic>
#include <cstdlib>
#include <random>
#include <string>
#include <thread>

#include "core/base/thread.h"
#include "core/device/cpu_backend.h"
#include "core/expert/expert_cache.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace pregate {
namespace {

constexpr uint32_t kLayers = 4;
constexpr uint32_t kExperts = 8;
constexpr uint64_t kRecord = 10'000;

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* const value = std::getenv(name);
  return value == nullptr ? otherwise : std::stoull(value);
}

// Bytes that tell the expert. Some records come at once, some from other threads, some not at all.
class RandomSource final : public RecordSource {
 public:
  explicit RandomSource(uint64_t seed) : seed_(seed) {
    header_.num_layers = kLayers;
    header_.num_experts = kExperts;
    header_.record_bytes = kRecord;
    for (uint32_t i = 0; i < kLayers * kExperts; ++i) records_.emplace_back(kRecord, ByteOf(i));
  }
  static std::byte ByteOf(uint32_t flat) { return static_cast<std::byte>(flat + 1); }

  const ExpertPackHeader& header() const override { return header_; }

  void Fetch(ExpertId id, bool /*is_urgent*/, Done done) override {
    std::mt19937_64 random(seed_ + num_fetches_++);
    const bool fails = random() % 40 == 0;
    const bool from_disk = random() % 3 == 0;
    const auto answer = [this, id, fails, from_disk, done] {
      if (fails) return done(absl::DataLossError("expert " + ToString(id) + ": damaged"));
      done(HostRecord(records_[id.Flat(kExperts)], from_disk, nullptr));
    };
    if (!from_disk || !disk_.TryRun(answer)) answer();
  }
  void VisitStats(StatsVisitor&) const override {}

 private:
  const uint64_t seed_;
  ExpertPackHeader header_;
  std::vector<std::vector<std::byte>> records_;
  std::atomic<uint64_t> num_fetches_ = 0;
  ThreadPool disk_{"disk", 2, 1000};
};

class ExpertCacheProperty : public testing::Test {
 protected:
  ExpertCacheProperty() { RecordProperty("seed", std::to_string(seed_)); }

  void Open(std::optional<SimulatedLink> link) {
    SCOPED_TRACE(testing::Message() << "PREGATE_SEED=" << seed_);
    backend_ = std::make_unique<CpuBackend>(link);
    ExpertCache::Options options;
    options.num_slots = 3;
    options.max_hinted_loads = 2;
    auto cache = ExpertCache::Create({&source_}, *backend_, clock_, options);
    ASSERT_TRUE(cache.ok()) << cache.status();
    cache_ = *std::move(cache);
  }

  // A reader of the cache until the time is over, at least `num_steps` steps.
  void Work(uint64_t seed, int num_steps) {
    SCOPED_TRACE(testing::Message() << "PREGATE_SEED=" << seed_);
    std::mt19937_64 random(seed);
    CallerStream stream;
    const TimePoint end =
        clock_.Now() + FromSeconds(static_cast<double>(FromEnvironment("PREGATE_SECONDS", 0)));
    for (int step = 0; step < num_steps || clock_.Now() < end; ++step) {
      Look(random, static_cast<uint32_t>(step) % kLayers, stream);
      Change(random);
      const absl::Status valid = cache_->Validate();
      ASSERT_TRUE(valid.ok()) << valid << ", step " << step;
    }
  }

  void Look(std::mt19937_64& random, uint32_t layer, CallerStream& stream) {
    std::vector<ExpertId> ids;
    for (uint32_t expert = 0; expert < kExperts; ++expert) {
      if (random() % 3 == 0) ids.push_back({.layer = layer, .expert = expert});
    }
    if (ids.empty()) return;
    absl::StatusOr<ExpertLease> lease = cache_->Acquire(ids, stream);
    ASSERT_TRUE(lease.ok()) << lease.status();
    ASSERT_EQ(lease->lookups().size(), ids.size());
    if (random() % 2 == 0) HintAt(random, (layer + 1) % kLayers);
    std::vector<bool> yielded(ids.size());
    // Some leases end early.
    size_t left = random() % 10 == 0 ? random() % ids.size() : ids.size();
    while (left-- > 0) {
      const std::optional<ExpertLease::Expert> next = lease->Next();
      ASSERT_TRUE(next.has_value());
      ASSERT_FALSE(yielded[next->index]);
      yielded[next->index] = true;
      if (!next->status.ok()) {
        ASSERT_THAT(std::string(next->status.message()),
                    testing::HasSubstr(ToString(ids[next->index])));
        continue;
      }
      const std::byte expected = RandomSource::ByteOf(ids[next->index].Flat(kExperts));
      for (uint64_t i = 0; i < kRecord; i += 997) ASSERT_EQ(next->record[i], expected);
    }
  }

  void HintAt(std::mt19937_64& random, uint32_t layer) {
    std::vector<ExpertHint> hints;
    for (size_t i = random() % 4; i > 0; --i) {
      hints.push_back({.id = {.layer = layer, .expert = static_cast<uint32_t>(random() % kExperts)},
                       .probability = static_cast<float>(random() % 101) / 100});
    }
    cache_->Hint(hints);
  }

  void Change(std::mt19937_64& random) {
    const std::vector<std::string> policies = EvictionPolicyNames();
    if (random() % 50 == 0) {
      const absl::Status status = cache_->SetNumSlots(1 + random() % 12);
      ASSERT_TRUE(status.ok()) << status;
    }
    if (random() % 200 == 0) cache_->Reset();
    if (random() % 100 == 0) {
      ASSERT_TRUE(cache_->SetEviction(policies[random() % policies.size()]).ok());
    }
    if (random() % 100 == 0) cache_->SetDropAfterUse(random() % 2 == 0);
    if (random() % 100 == 0) cache_->SetUnified(random() % 3 == 0);
    if (random() % 100 == 0) cache_->CancelHints();
  }

  const uint64_t seed_ = FromEnvironment("PREGATE_SEED", 20);
  RandomSource source_{seed_};
  std::unique_ptr<CpuBackend> backend_;
  const RealClock clock_;
  std::unique_ptr<ExpertCache> cache_;
};

TEST_F(ExpertCacheProperty, HoldsForOneReader) {
  Open(std::nullopt);
  Work(seed_, 5000);
}

TEST_F(ExpertCacheProperty, HoldsForSeveralReadersOnAPacedLink) {
  Open(SimulatedLink{.bytes_per_second = 2e9, .latency_seconds = 1e-6});
  std::vector<std::thread> readers;
  for (uint64_t i = 0; i < 3; ++i) {
    readers.emplace_back([this, i] { Work(seed_ * 10 + i, 800); });
  }
  for (std::thread& reader : readers) reader.join();
}

}  // namespace
}  // namespace pregate
