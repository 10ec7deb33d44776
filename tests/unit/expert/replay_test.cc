#include "core/expert/replay.h"

#include "core/expert/eviction_belady.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace pregate {
namespace {

using ::testing::ElementsAre;

// One layer of 4 experts, top-1: a sequence is the experts of its tokens.
RoutingTrace Trace(std::vector<std::vector<uint16_t>> sequences) {
  RoutingTrace trace = {
      .model = "", .num_layers = 1, .num_experts = 4, .experts_per_token = 1, .sequences = {}};
  for (std::vector<uint16_t>& ids : sequences) {
    trace.sequences.push_back({.id = "", .num_prompt_tokens = 0, .expert_ids = std::move(ids)});
  }
  return trace;
}

std::vector<std::vector<uint32_t>> All(const TraceLookups& lookups) {
  std::vector<std::vector<uint32_t>> all;
  for (size_t i = 0; i < lookups.size(); ++i) {
    all.emplace_back(lookups.experts(i).begin(), lookups.experts(i).end());
  }
  return all;
}

uint64_t LruHits(const TraceLookups& lookups, uint32_t num_slots) {
  return Replay(lookups, **MakeEvictionPolicy("lru", lookups.shape()), num_slots).hits;
}

TEST(TraceLookups, OneStreamPlaysTheSequencesOneAfterAnother) {
  EXPECT_THAT(
      All(TraceLookups(Trace({{0, 1}, {2}, {3, 3}}), 1)),
      ElementsAre(ElementsAre(0), ElementsAre(1), ElementsAre(2), ElementsAre(3), ElementsAre(3)));
}

TEST(TraceLookups, StreamsShareAStepAndCountAnExpertOnce) {
  EXPECT_THAT(All(TraceLookups(Trace({{0, 1}, {0, 2}}), 2)),
              ElementsAre(ElementsAre(0), ElementsAre(1, 2)));
}

TEST(TraceLookups, AFinishedStreamIsReplacedUntilNoneIsLeft) {
  // The second sequence ends first; the third takes its place and ends with nobody to follow.
  EXPECT_THAT(All(TraceLookups(Trace({{0, 0, 0, 0}, {1}, {2, 3}}), 2)),
              ElementsAre(ElementsAre(0, 1), ElementsAre(0, 2), ElementsAre(0, 3)));
}

TEST(TraceLookups, LeavesPromptsAndEmptySequencesOut) {
  RoutingTrace trace = Trace({{0, 1, 2}, {}, {3}});
  trace.sequences[0].num_prompt_tokens = 2;
  EXPECT_THAT(All(TraceLookups(trace, 1)), ElementsAre(ElementsAre(2), ElementsAre(3)));
}

TEST(TraceLookups, GoesThroughTheLayersOfAStep) {
  RoutingTrace trace = Trace({{0, 1, 2, 3}});
  trace.num_layers = 2;
  const TraceLookups lookups(trace, 1);
  EXPECT_THAT(All(lookups),
              ElementsAre(ElementsAre(0), ElementsAre(5), ElementsAre(2), ElementsAre(7)));
  EXPECT_EQ(lookups.layer(1), 1u);
  EXPECT_EQ(lookups.layer(2), 0u);
}

TEST(Replay, CountsColdMisses) {
  const TraceLookups lookups(Trace({{0, 1, 0, 1, 0}}), 1);
  EXPECT_EQ(LruHits(lookups, 2), 3u);
  EXPECT_EQ(LruHits(lookups, 1), 0u);
  EXPECT_EQ(Replay(lookups, **MakeEvictionPolicy("lru", lookups.shape()), 2).misses(), 2u);
}

TEST(Replay, ALookUpIsAtomic) {
  // Both are looked up before either is inserted, and neither is the other's victim.
  const TraceLookups lookups(Trace({{0, 0, 0}, {1, 1, 1}}), 2);
  EXPECT_EQ(LruHits(lookups, 1), 2u) << "one of the two stays";
  EXPECT_EQ(LruHits(lookups, 2), 4u);
}

TEST(Replay, TheOptimumKnowsWhatComes) {
  const TraceLookups lookups(Trace({{0, 1, 2, 0, 1, 3, 0, 1}}), 1);
  BeladyEviction optimum(All(lookups), lookups.shape());
  EXPECT_EQ(LruHits(lookups, 2), 0u);
  EXPECT_EQ(Replay(lookups, optimum, 2).hits, 2u);
}

}  // namespace
}  // namespace pregate
