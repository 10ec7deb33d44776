#include "core/expert/replay.h"

#include <string>
#include <utility>

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

// Two layers of 4 experts, top-1: a sequence is the experts of its tokens, layer by layer.
RoutingTrace TwoLayers(std::vector<std::vector<uint16_t>> sequences) {
  RoutingTrace trace = Trace(std::move(sequences));
  trace.num_layers = 2;
  return trace;
}

// Says of each layer what it was told, and remembers what it was shown.
class ScriptedPredictor final : public ExpertPredictor {
 public:
  // Of the second layer, in each step.
  explicit ScriptedPredictor(std::vector<std::vector<ExpertPrediction>> script)
      : script_(std::move(script)) {}

  absl::string_view name() const override { return "scripted"; }
  void Observe(const RoutedLayer& routed) override {
    if (routed.layer == 0) ++step_;
    seen_.emplace_back(routed.expert_ids.begin(), routed.expert_ids.end());
    sequences_.emplace_back(routed.sequences.begin(), routed.sequences.end());
  }
  void Predict(uint32_t distance, std::vector<ExpertPrediction>& predictions) override {
    EXPECT_EQ(distance, 1u);
    predictions = script_[step_ - 1];
  }

  const std::vector<std::vector<uint32_t>>& seen() const { return seen_; }
  const std::vector<std::vector<uint64_t>>& sequences() const { return sequences_; }

 private:
  const std::vector<std::vector<ExpertPrediction>> script_;
  size_t step_ = 0;
  std::vector<std::vector<uint32_t>> seen_;
  std::vector<std::vector<uint64_t>> sequences_;
};

ReplayResult Prefetch(const RoutingTrace& trace,
                      uint32_t num_streams,
                      const std::string& policy,
                      uint32_t num_slots,
                      ExpertPredictor& predictor,
                      const PrefetchOptions& options) {
  const TraceLookups lookups(trace, num_streams);
  return Replay(lookups,
                **MakeEvictionPolicy(policy, lookups.shape()),
                num_slots,
                TraceSteps(trace, num_streams),
                predictor,
                options);
}

PrefetchOptions ActOnAll() {
  PrefetchOptions options;
  options.aggressiveness = 1;
  return options;
}

TEST(ReplayWithPrefetch, HitsWhatWasForeseenAndCountsWhatBecameOfIt) {
  // Expert 5 (1 of the second layer) is foreseen, 6 in vain: it is evicted; 7 waits at the end.
  const RoutingTrace trace = TwoLayers({{0, 1, 1, 0, 2, 0}});
  ScriptedPredictor predictor({{{1, 1}}, {{2, 1}}, {{3, 1}}});
  const ReplayResult result = Prefetch(trace, 1, "lru", 2, predictor, ActOnAll());
  EXPECT_EQ(result.lookups, 6u);
  EXPECT_EQ(result.hits, 1u);
  EXPECT_EQ(result.prefetched, 3u);
  EXPECT_EQ(result.useful, 1u);
  EXPECT_EQ(result.wasted, 1u);
}

TEST(ReplayWithPrefetch, ShowsThePredictorEveryLayerOfEveryStep) {
  RoutingTrace trace = TwoLayers({{0, 1, 2, 3}, {3, 3, 1, 1}});
  ScriptedPredictor predictor({{}, {}});
  const ReplayResult result = Prefetch(trace, 2, "lru", 8, predictor, ActOnAll());
  EXPECT_THAT(
      predictor.seen(),
      ElementsAre(ElementsAre(0, 3), ElementsAre(1, 3), ElementsAre(2, 1), ElementsAre(3, 1)));
  EXPECT_THAT(predictor.sequences(), ::testing::Each(ElementsAre(0, 1)));
  EXPECT_EQ(result.hits,
            Replay(TraceLookups(trace, 2),
                   **MakeEvictionPolicy("lru", {.num_layers = 2, .num_experts = 4}),
                   8)
                .hits)
      << "who foresees nothing changes nothing";
}

TEST(ReplayWithPrefetch, LoadsNoMoreThanALayersTimeAllows) {
  const RoutingTrace trace = TwoLayers({{0, 1}});
  PrefetchOptions options = ActOnAll();
  options.max_loads = 2;
  ScriptedPredictor late({{{3, 0.9F}, {2, 0.8F}, {1, 0.7F}}});
  EXPECT_EQ(Prefetch(trace, 1, "lru", 8, late, options).hits, 0u);
  options.max_loads = 3;
  ScriptedPredictor in_time({{{3, 0.9F}, {2, 0.8F}, {1, 0.7F}}});
  const ReplayResult result = Prefetch(trace, 1, "lru", 8, in_time, options);
  EXPECT_EQ(result.prefetched, 3u);
  EXPECT_EQ(result.hits, 1u);
}

// Says of each layer that it needs the expert of the layer's own number.
class CountingPredictor final : public ExpertPredictor {
 public:
  absl::string_view name() const override { return "counting"; }
  void Observe(const RoutedLayer& routed) override { layer_ = routed.layer; }
  void Predict(uint32_t distance, std::vector<ExpertPrediction>& predictions) override {
    predictions = {{layer_ + distance, 1}};
  }

 private:
  uint32_t layer_ = 0;
};

TEST(ReplayWithPrefetch, LooksAheadToTheEndOfTheStep) {
  RoutingTrace trace = Trace({{0, 1, 2, 0, 1, 2}});
  trace.num_layers = 3;
  PrefetchOptions options = ActOnAll();
  options.lookahead = 3;
  CountingPredictor unhurried;
  const ReplayResult both = Prefetch(trace, 1, "lru", 12, unhurried, options);
  EXPECT_EQ(both.prefetched, 2u) << "of two steps, the second has all";
  EXPECT_EQ(both.hits, 5u);
  // With a load a layer the nearer one comes first.
  options.max_loads = 1;
  CountingPredictor slow;
  EXPECT_EQ(Prefetch(trace, 1, "lru", 12, slow, options).hits, 5u);
}

TEST(ReplayWithPrefetch, ActsOnWhatTheOptionsCover) {
  const RoutingTrace trace = TwoLayers({{0, 1}});
  PrefetchOptions options = ActOnAll();
  options.aggressiveness = 0.5;
  ScriptedPredictor bold({{{3, 0.8F}, {2, 0.3F}, {1, 0.3F}}});
  EXPECT_EQ(Prefetch(trace, 1, "lru", 8, bold, options).prefetched, 1u);
  options = ActOnAll();
  options.confidence = 0.5;
  ScriptedPredictor sure({{{3, 0.8F}, {2, 0.6F}, {1, 0.3F}}});
  EXPECT_EQ(Prefetch(trace, 1, "lru", 8, sure, options).prefetched, 2u);
}

TEST(ReplayWithPrefetch, KeepsWhatIsNeededAndWhatIsPredicted) {
  // One slot, and the look-up's expert is in it.
  const RoutingTrace trace = TwoLayers({{0, 1}});
  ScriptedPredictor needed({{{1, 1}}});
  EXPECT_EQ(Prefetch(trace, 1, "lru", 1, needed, ActOnAll()).prefetched, 0u);
  // Two slots, of which the second takes the first prediction and keeps it.
  ScriptedPredictor predicted({{{1, 0.9F}, {2, 0.8F}}});
  const ReplayResult result = Prefetch(trace, 1, "lru", 2, predicted, ActOnAll());
  EXPECT_EQ(result.prefetched, 1u);
  EXPECT_EQ(result.hits, 1u);
}

TEST(ReplayWithPrefetch, EvictsNothingThatIsWorthMore) {
  // Four steps have needed 4 (0 of the second layer); 7 is hardly probable.
  const RoutingTrace trace = TwoLayers({{0, 0, 0, 0, 0, 0, 0, 0, 0, 0}});
  ScriptedPredictor doubtful({{}, {}, {}, {}, {{3, 0.001F}}});
  EXPECT_EQ(Prefetch(trace, 1, "ewma", 2, doubtful, ActOnAll()).prefetched, 0u);
  ScriptedPredictor sure({{}, {}, {}, {}, {{3, 1}}});
  const ReplayResult result = Prefetch(trace, 1, "ewma", 2, sure, ActOnAll());
  EXPECT_EQ(result.prefetched, 1u);
  EXPECT_EQ(result.hits, 7u) << "4 was evicted for it";
}

}  // namespace
}  // namespace pregate
