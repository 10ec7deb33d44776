#include "core/expert/expert_cache.h"

#include <thread>

#include "core/device/cpu_backend.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/fake_clock.h"
#include "tests/support/recorded_stats.h"
#include "tests/support/scripted_source.h"

namespace pregate {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

constexpr uint64_t kRecord = 5000;

// 3 layers of 4 experts.
class ExpertCacheTest : public testing::Test {
 protected:
  void Open(ExpertCache::Options options) {
    absl::StatusOr<std::unique_ptr<ExpertCache>> cache =
        ExpertCache::Create({&source_}, backend_, clock_, options);
    ASSERT_TRUE(cache.ok()) << cache.status();
    cache_ = *std::move(cache);
  }
  void Open(uint32_t num_slots) {
    ExpertCache::Options options;
    options.num_slots = num_slots;
    options.eviction = "lru";
    Open(options);
  }

  ExpertLease Acquire(uint32_t layer, const std::vector<uint32_t>& experts) {
    std::vector<ExpertId> ids;
    for (const uint32_t expert : experts) ids.push_back({.layer = layer, .expert = expert});
    absl::StatusOr<ExpertLease> lease = cache_->Acquire(ids, stream_);
    EXPECT_TRUE(lease.ok()) << lease.status();
    return *std::move(lease);
  }

  // Every expert of the lease, with its bytes looked at; those that failed as experts + 100.
  std::vector<uint32_t> Drain(ExpertLease& lease, uint32_t layer, std::vector<uint32_t> experts) {
    std::vector<uint32_t> yielded;
    while (const std::optional<ExpertLease::Expert> next = lease.Next()) {
      const uint32_t expert = experts[next->index];
      if (!next->status.ok()) {
        yielded.push_back(expert + 100);
        continue;
      }
      yielded.push_back(expert);
      const std::byte expected = ScriptedSource::ByteOf(layer * 4 + expert);
      for (uint64_t i = 0; i < kRecord; i += 499) EXPECT_EQ(next->record[i], expected);
    }
    const absl::Status valid = cache_->Validate();
    EXPECT_TRUE(valid.ok()) << valid;
    return yielded;
  }
  std::vector<uint32_t> Use(uint32_t layer, const std::vector<uint32_t>& experts) {
    ExpertLease lease = Acquire(layer, experts);
    return Drain(lease, layer, experts);
  }

  void Hint(uint32_t layer, const std::vector<uint32_t>& experts, float probability = 1) {
    std::vector<ExpertHint> hints;
    for (const uint32_t expert : experts) {
      hints.push_back({.id = {.layer = layer, .expert = expert}, .probability = probability});
    }
    cache_->Hint(hints);
  }
  // That a copy is done is noted by another thread.
  void AwaitReady(uint32_t count) {
    while (cache_->Read().slots.ready < count) std::this_thread::yield();
  }
  void AwaitFree(uint32_t count) {
    while (cache_->Read().slots.free < count) std::this_thread::yield();
  }

  ScriptedSource source_{3, 4, kRecord};
  CpuBackend backend_;
  const RealClock clock_;
  CallerStream stream_;
  std::unique_ptr<ExpertCache> cache_;
};

TEST_F(ExpertCacheTest, WhatWasLoadedIsThereTheNextTime) {
  Open(4);
  EXPECT_THAT(Use(0, {1, 3}), UnorderedElementsAre(1, 3));
  EXPECT_THAT(Acquire(0, {1, 3, 2}).lookups(),
              ElementsAre(Lookup::kHit, Lookup::kHit, Lookup::kMiss));
  const ExpertCache::Snapshot snapshot = cache_->Read();
  EXPECT_THAT(snapshot.lookups, ElementsAre(2, 0, 3));
  EXPECT_THAT(snapshot.layer_lookups[0], ElementsAre(2, 0, 3));
  EXPECT_EQ(snapshot.demanded_bytes, 3 * kRecord);
}

TEST_F(ExpertCacheTest, ResidentExpertsComeFirst) {
  Open(4);
  Use(1, {2});
  EXPECT_EQ(Use(1, {0, 1, 2}).front(), 2u);
}

TEST_F(ExpertCacheTest, WhatIsResidentComesAsOneGroup) {
  Open(4);
  Use(1, {0, 2});
  AwaitReady(2);
  source_.Hold();
  ExpertLease lease = Acquire(1, {0, 1, 2});
  const auto next = [&lease] {
    std::vector<size_t> indices;
    for (const ExpertLease::Expert& expert : lease.NextGroup(4)) indices.push_back(expert.index);
    return indices;
  };
  EXPECT_THAT(next(), ElementsAre(0, 2));
  source_.Release();
  EXPECT_THAT(next(), ElementsAre(1));
  EXPECT_THAT(next(), ElementsAre());
  EXPECT_TRUE(cache_->Validate().ok());
}

TEST_F(ExpertCacheTest, MoreExpertsThanSlotsAreServedInWaves) {
  Open(1);
  EXPECT_THAT(Use(2, {0, 1, 2, 3}), UnorderedElementsAre(0, 1, 2, 3));
  EXPECT_EQ(cache_->Read().evictions, 3u);
}

TEST_F(ExpertCacheTest, TheLeastRecentlyUsedLeaves) {
  Open(3);
  Use(0, {0});
  Use(1, {0});
  Use(2, {0});
  Use(0, {0});
  AwaitReady(3);
  Use(1, {1});  // takes the place of 1/0
  AwaitReady(3);
  EXPECT_THAT(cache_->Read().resident, ElementsAre(ExpertId{0, 0}, ExpertId{1, 1}, ExpertId{2, 0}));
}

TEST_F(ExpertCacheTest, ALeasedExpertIsNoVictim) {
  Open(2);
  ExpertLease lease = Acquire(0, {0});
  const std::optional<ExpertLease::Expert> leased = lease.Next();
  ASSERT_TRUE(leased.has_value());
  Use(1, {0, 1, 2});
  EXPECT_EQ(leased->record[7], ScriptedSource::ByteOf(0)) << "its bytes did not change";
}

TEST_F(ExpertCacheTest, AnExpertThatCannotBeReadFailsAloneAndIsTriedAgain) {
  Open(4);
  source_.Hold();
  ExpertLease lease = Acquire(0, {0, 1});
  source_.Release(absl::DataLossError("expert 0/0: is damaged"));
  source_.Release();
  EXPECT_THAT(Drain(lease, 0, {0, 1}), UnorderedElementsAre(100, 1));
  AwaitReady(1);
  EXPECT_THAT(cache_->Read().resident, ElementsAre(ExpertId{0, 1}));

  ExpertLease again = Acquire(0, {0});
  EXPECT_THAT(again.lookups(), ElementsAre(Lookup::kMiss));
  source_.Release();
  EXPECT_THAT(Drain(again, 0, {0}), ElementsAre(0));
}

TEST_F(ExpertCacheTest, EveryLeaseThatWaitsGetsTheSameFailure) {
  Open(4);
  source_.Hold();
  ExpertLease first = Acquire(0, {2});
  ExpertLease second = Acquire(0, {2});
  EXPECT_EQ(source_.num_held(), 1u) << "it is read once for both";
  source_.Release(absl::DataLossError("expert 0/2: is damaged"));
  EXPECT_EQ(first.Next()->status.message(), "expert 0/2: is damaged");
  EXPECT_EQ(second.Next()->status.message(), "expert 0/2: is damaged");
}

TEST_F(ExpertCacheTest, AHintThatComesInTimeIsUseful) {
  Open(4);
  Hint(1, {3});
  AwaitReady(1);
  EXPECT_EQ(cache_->Read().hinted.pending, kRecord);
  EXPECT_THAT(Acquire(1, {3}).lookups(), ElementsAre(Lookup::kHit));
  const ExpertCache::HintedBytes hinted = cache_->Read().hinted;
  EXPECT_EQ(hinted.useful, kRecord);
  EXPECT_EQ(hinted.pending, 0u);
  EXPECT_EQ(cache_->Read().demanded_bytes, 0u);
}

TEST_F(ExpertCacheTest, AHintThatIsUnderWayIsALateHit) {
  Open(4);
  source_.Hold();
  Hint(1, {3});
  ExpertLease lease = Acquire(1, {3});
  EXPECT_THAT(lease.lookups(), ElementsAre(Lookup::kLateHit));
  source_.Release();
  EXPECT_THAT(Drain(lease, 1, {3}), ElementsAre(3));
  EXPECT_EQ(cache_->Read().hinted.late, kRecord);
  EXPECT_EQ(source_.num_fetches(), 1u);
}

TEST_F(ExpertCacheTest, AHintForWhatALeaseStillWaitsForIsALateOne) {
  Open(1);
  source_.Hold();
  ExpertLease lease = Acquire(1, {2, 3});  // there is no slot for 1/3 yet
  ASSERT_TRUE(cache_->SetNumSlots(2).ok());
  Hint(1, {3});
  source_.Release();
  EXPECT_EQ(lease.Next()->index, 0u);
  EXPECT_EQ(cache_->Read().hinted.late, kRecord);
  EXPECT_EQ(cache_->Read().hinted.pending, 0u);
  source_.Release();
  EXPECT_THAT(Drain(lease, 1, {2, 3}), ElementsAre(3));
}

TEST_F(ExpertCacheTest, AHintThatIsNeverUsedIsWasted) {
  Open(1);
  Hint(1, {3});
  AwaitReady(1);
  Use(1, {0});  // its layer has come without it
  EXPECT_EQ(cache_->Read().hinted.wasted, kRecord);
}

TEST_F(ExpertCacheTest, AHintThatIsRepeatedNoMoreIsCancelled) {
  Open(4);
  source_.Hold();
  Hint(1, {3});
  Hint(1, {2});
  EXPECT_EQ(cache_->Read().hinted.cancelled, kRecord);
  source_.Release();  // of 1/3, too late
  source_.Release();
  AwaitReady(1);
  EXPECT_THAT(cache_->Read().resident, ElementsAre(ExpertId{1, 2}));
}

TEST_F(ExpertCacheTest, HintsDoNotEvictWhatIsExpected) {
  Open(1);
  Hint(1, {0});
  AwaitReady(1);
  Hint(1, {0, 1});
  EXPECT_THAT(cache_->Read().resident, ElementsAre(ExpertId{1, 0}));
  EXPECT_EQ(cache_->Read().slots.loading, 0u);
}

TEST_F(ExpertCacheTest, HintsHoldNoMoreThanTheirBudget) {
  ExpertCache::Options options;
  options.num_slots = 8;
  options.max_hinted_loads = 2;
  Open(options);
  source_.Hold();
  Hint(1, {0, 1, 2, 3});
  EXPECT_EQ(cache_->Read().slots.loading, 2u);
  source_.Release();
  source_.Release();
}

TEST_F(ExpertCacheTest, ANeedTakesTheSlotOfAGuessThatHasNotBegun) {
  Open(1);
  source_.Hold();
  Hint(1, {3});
  ExpertLease lease = Acquire(0, {0});
  source_.Release();  // the guess
  source_.Release();
  EXPECT_THAT(Drain(lease, 0, {0}), ElementsAre(0));
  EXPECT_EQ(cache_->Read().hinted.cancelled, kRecord);
}

TEST_F(ExpertCacheTest, AGuessThatIsLessProbableThanItsVictimIsUsedIsNotMade) {
  ExpertCache::Options options;
  options.num_slots = 1;
  options.eviction = "ewma";
  Open(options);
  for (int step = 0; step < 100; ++step) Use(1, {0});
  AwaitReady(1);
  Hint(2, {1}, 0.01f);
  EXPECT_THAT(cache_->Read().resident, ElementsAre(ExpertId{1, 0}));
  EXPECT_EQ(cache_->Read().slots.loading, 0u);
}

TEST_F(ExpertCacheTest, WithoutACacheBeyondTheStepNothingStays) {
  ExpertCache::Options options;
  options.num_slots = 4;
  options.drop_after_use = true;
  Open(options);
  Use(0, {0, 1});
  AwaitFree(4);
  EXPECT_THAT(Acquire(0, {0}).lookups(), ElementsAre(Lookup::kMiss));
}

// Two encodings: the second has half the bytes, and other ones.
TEST_F(ExpertCacheTest, LoadsTakeTheEncodingThatIsSet) {
  ScriptedSource smaller(3, 4, kRecord / 2);
  FakeClock clock;
  ExpertCache::Options options;
  options.num_slots = 4;
  absl::StatusOr<std::unique_ptr<ExpertCache>> cache =
      ExpertCache::Create({&source_, &smaller}, backend_, clock, options);
  ASSERT_TRUE(cache.ok()) << cache.status();
  cache_ = *std::move(cache);

  cache_->SetEncoding(1);
  ExpertLease lease = Acquire(0, {1});
  EXPECT_EQ(lease.demanded_bytes(), kRecord / 2);
  EXPECT_EQ(lease.Next()->encoding, 1u);
  EXPECT_FALSE(lease.Next().has_value());
  AwaitReady(1);
  EXPECT_EQ(smaller.num_fetches(), 1u);

  // What is resident in the smaller one is loaded anew once it is not wanted any more.
  cache_->SetEncoding(0);
  ExpertLease again = Acquire(0, {1});
  EXPECT_THAT(again.lookups(), ElementsAre(Lookup::kMiss));
  EXPECT_EQ(again.Next()->encoding, 0u);
  EXPECT_FALSE(again.Next().has_value());
  AwaitReady(1);
  EXPECT_THAT(Acquire(0, {1}).lookups(), ElementsAre(Lookup::kHit));
  EXPECT_TRUE(cache_->Validate().ok());
}

TEST_F(ExpertCacheTest, CapacityGrowsAndShrinksWhileServing) {
  Open(2);
  ASSERT_TRUE(cache_->SetNumSlots(6).ok());
  Use(0, {0, 1, 2, 3});
  Use(1, {0, 1});
  AwaitReady(6);

  ExpertLease lease = Acquire(1, {0, 1});
  ASSERT_TRUE(cache_->SetNumSlots(1).ok());
  EXPECT_THAT(Drain(lease, 1, {0, 1}), UnorderedElementsAre(0, 1));
  while (cache_->Read().slots.ready + cache_->Read().slots.free > 1) std::this_thread::yield();
  EXPECT_THAT(Use(2, {0, 1, 2}), UnorderedElementsAre(0, 1, 2));
  EXPECT_EQ(cache_->SetNumSlots(0).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(cache_->SetNumSlots(13).message()), HasSubstr("1 to 12 are allowed"));
}

TEST_F(ExpertCacheTest, UnifiedMemoryIsUsedWhereItLies) {
  ExpertCache::Options options;
  options.num_slots = 1;
  options.is_unified = true;
  Open(options);
  EXPECT_THAT(Use(0, {0, 1, 2, 3}), UnorderedElementsAre(0, 1, 2, 3));
  EXPECT_THAT(cache_->Read().lookups, ElementsAre(4, 0, 0));
  source_.Hold();
  ExpertLease lease = Acquire(1, {2});
  EXPECT_THAT(lease.lookups(), ElementsAre(Lookup::kMiss)) << "it comes from disk";
  source_.Release();
  EXPECT_THAT(Drain(lease, 1, {2}), ElementsAre(2));
}

TEST_F(ExpertCacheTest, ResetForgetsWhatIsNotInUse) {
  Open(4);
  Use(0, {0, 1});
  ExpertLease lease = Acquire(1, {3});
  ASSERT_TRUE(lease.Next().has_value());
  AwaitReady(3);
  cache_->Reset();
  EXPECT_THAT(cache_->Read().resident, ElementsAre(ExpertId{1, 3}));
}

TEST_F(ExpertCacheTest, RefusesWhatIsNoLookUp) {
  Open(2);
  const std::vector<ExpertId> two_layers = {{0, 1}, {1, 1}};
  EXPECT_EQ(cache_->Acquire({}, stream_).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(cache_->Acquire(two_layers, stream_).status().message()),
              HasSubstr("expert 1/1 was asked for with those of layer 0"));
  const std::vector<ExpertId> beyond = {{2, 4}};
  EXPECT_EQ(cache_->Acquire(beyond, stream_).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(ExpertCacheTest, TwoLeasesOverOneSlotBothEnd) {
  Open(1);
  std::thread other([this] {
    CallerStream stream;
    for (int step = 0; step < 200; ++step) {
      const std::vector<ExpertId> ids = {{1, 0}, {1, 1}, {1, 2}};
      absl::StatusOr<ExpertLease> lease = cache_->Acquire(ids, stream);
      while (lease->Next().has_value()) {
      }
    }
  });
  for (int step = 0; step < 200; ++step) {
    EXPECT_THAT(Use(0, {0, 1, 2, 3}), UnorderedElementsAre(0, 1, 2, 3));
  }
  other.join();
}

TEST_F(ExpertCacheTest, ShowsEverySeriesFromTheStart) {
  Open(2);
  RecordedStats stats;
  cache_->VisitStats(stats);
  for (const char* series : {"expert_cache_hits_total",
                             "expert_cache_late_hits_total",
                             "expert_cache_misses_total",
                             "expert_cache_evictions_total",
                             "expert_stall_seconds_total",
                             "link_busy_seconds_total",
                             "expert_prefetch_bytes_total{result=\"useful\"}",
                             "expert_prefetch_bytes_total{result=\"late\"}",
                             "expert_prefetch_bytes_total{result=\"wasted\"}",
                             "expert_prefetch_bytes_total{result=\"cancelled\"}",
                             "expert_loaded_bytes_total{source=\"host\",reason=\"demand\"}",
                             "expert_loaded_bytes_total{source=\"disk\",reason=\"prefetch\"}"}) {
    EXPECT_EQ(stats.value(series), 0) << series;
  }
  EXPECT_EQ(stats.value("expert_cache_slots{state=\"free\"}"), 2);
}

TEST_F(ExpertCacheTest, TellsHowLongTheLinkWasBusy) {
  Open(2);
  Use(0, {0, 1});
  AwaitReady(2);
  RecordedStats stats;
  cache_->VisitStats(stats);
  const double busy = stats.value("link_busy_seconds_total");
  EXPECT_GT(busy, 0);
  EXPECT_GE(stats.sum("expert_load_seconds{source=\"host\"}"), busy);  // waiting is in that
  Use(0, {0, 1});
  RecordedStats later;
  cache_->VisitStats(later);
  EXPECT_EQ(later.value("link_busy_seconds_total"), busy);
}

}  // namespace
}  // namespace pregate
