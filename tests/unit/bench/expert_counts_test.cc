#include "bench/expert_counts.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace pregate {
namespace {

using ::testing::ElementsAre;

// Layer by layer hits, late hits and misses.
ExpertCounts Counts(std::vector<std::array<uint64_t, 3>> layers) {
  ExpertCounts counts;
  counts.layer_lookups = std::move(layers);
  return counts;
}

TEST(ExpertCounts, SharesLookupsOfAllLayers) {
  const ExpertCounts counts = Counts({{4, 1, 0}, {2, 0, 3}});
  EXPECT_THAT(counts.lookups(), ElementsAre(6, 1, 3));
  EXPECT_EQ(counts.num_lookups(), 10);
  EXPECT_DOUBLE_EQ(counts.ShareOf(Lookup::kHit), 0.6);
  EXPECT_DOUBLE_EQ(counts.ShareOf(Lookup::kLateHit), 0.1);
  EXPECT_DOUBLE_EQ(counts.ShareOf(Lookup::kMiss), 0.3);
}

TEST(ExpertCounts, LeavesTheFirstLayerOutOfRecall) {
  ExpertCounts counts = Counts({{4, 1, 0}, {2, 0, 2}});
  counts.predicted = 6;
  counts.correct = 3;
  EXPECT_DOUBLE_EQ(counts.recall(), 0.75);
  EXPECT_DOUBLE_EQ(counts.precision(), 0.5);
}

TEST(ExpertCounts, SaysNothingOfNothing) {
  const ExpertCounts counts;
  EXPECT_EQ(counts.num_lookups(), 0);
  EXPECT_EQ(counts.ShareOf(Lookup::kHit), 0);
  EXPECT_EQ(counts.recall(), 0);
  EXPECT_EQ(counts.precision(), 0);
}

TEST(ExpertCounts, SubtractsWhatWasThereBefore) {
  ExpertOffload::State state;
  state.cache.layer_lookups = {{1, 2, 3}, {4, 5, 6}};
  state.cache.demanded_bytes = 100;
  state.cache.hinted.useful = 50;
  state.cache.hinted.pending = 30;
  state.cache.stall_seconds = 1;
  state.speculation.predicted = 7;
  const ExpertCounts before = CountsOf(state);
  EXPECT_EQ(before.loaded_bytes, 180);

  state.cache.layer_lookups[1][2] += 4;
  state.cache.demanded_bytes += 10;
  state.cache.hinted.useful += 30;
  state.cache.hinted.pending = 20;
  state.cache.stall_seconds = 1.5;
  state.speculation.predicted += 2;
  const ExpertCounts since = CountsOf(state).Since(before);
  EXPECT_THAT(since.layer_lookups, ElementsAre(ElementsAre(0, 0, 0), ElementsAre(0, 0, 4)));
  EXPECT_EQ(since.loaded_bytes, 30) << "10 demanded, and 20 hinted that are pending";
  EXPECT_EQ(since.hinted.useful, 30);
  EXPECT_EQ(since.hinted.pending, 20);
  EXPECT_EQ(since.stall_seconds, 0.5);
  EXPECT_EQ(since.predicted, 2);

  ExpertCounts sum;
  sum += since;
  sum += since;
  EXPECT_THAT(sum.lookups(), ElementsAre(0, 0, 8));
  EXPECT_EQ(sum.loaded_bytes, 60);
}

TEST(ExpertCounts, TakesACancelledHintForNeverLoaded) {
  ExpertOffload::State state;
  state.cache.hinted.pending = 30;
  const ExpertCounts before = CountsOf(state);
  state.cache.hinted.pending = 0;
  state.cache.hinted.cancelled = 30;
  EXPECT_EQ(CountsOf(state).Since(before).loaded_bytes, 0);
}

}  // namespace
}  // namespace pregate
