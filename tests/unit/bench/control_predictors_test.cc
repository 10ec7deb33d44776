#include "bench/control_predictors.h"

#include <algorithm>
#include <numeric>
#include <random>

#include "core/expert/predictor_evaluation.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/fake_clock.h"

namespace pregate {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr uint32_t kNumLayers = 4;
constexpr uint32_t kNumExperts = 32;
constexpr uint32_t kPerToken = 4;

std::shared_ptr<const RoutingTrace> RandomTrace() {
  RoutingTrace trace = {.model = "random",
                        .num_layers = kNumLayers,
                        .num_experts = kNumExperts,
                        .experts_per_token = kPerToken,
                        .sequences = {}};
  std::mt19937 random(1);
  std::vector<uint16_t> experts(kNumExperts);
  std::iota(experts.begin(), experts.end(), uint16_t{0});
  for (int i = 0; i < 3; ++i) {
    std::vector<uint16_t>& ids = trace.sequences.emplace_back().expert_ids;
    for (int choice = 0; choice < 200 * static_cast<int>(kNumLayers); ++choice) {
      std::shuffle(experts.begin(), experts.end(), random);
      ids.insert(ids.end(), experts.begin(), experts.begin() + kPerToken);
    }
  }
  return std::make_shared<const RoutingTrace>(std::move(trace));
}

PredictorEvaluation Evaluate(OraclePredictor& predictor,
                             const RoutingTrace& trace,
                             uint32_t distance,
                             uint32_t streams) {
  FakeClock clock;
  return EvaluatePredictor(
      predictor, trace, clock, {.distance = distance, .streams = streams, .aggressiveness = 1});
}

TEST(OraclePredictor, KnowsEveryExpertOfEveryLayerToCome) {
  const auto trace = RandomTrace();
  for (const uint32_t distance : {1U, 3U}) {
    OraclePredictor oracle(trace);
    const PredictorEvaluation result = Evaluate(oracle, *trace, distance, 3);
    EXPECT_EQ(result.recall(), 1);
    EXPECT_EQ(result.wasted, 0);
    EXPECT_GT(result.acted_on, 0);
  }
}

TEST(OraclePredictor, IsAsGoodAsItIsMeantToBe) {
  const auto trace = RandomTrace();
  for (const double recall : {0.9, 0.5, 0.0}) {
    OraclePredictor simulated(trace, recall, 2);
    const PredictorEvaluation result = Evaluate(simulated, *trace, 1, 1);
    // 7,200 draws: five standard deviations are less than 0.03.
    EXPECT_NEAR(result.recall(), recall, 0.03);
    EXPECT_NEAR(result.wasted_share(), 1 - recall, 0.03);
    EXPECT_EQ(result.acted_on, 600 * (kNumLayers - 1) * kPerToken)
        << "a wrong expert stands for each that is not known";
  }
}

TEST(OraclePredictor, SeesNoFurtherThanItsHorizon) {
  const auto trace = RandomTrace();
  OraclePredictor simulated(trace, 1, 1);
  EXPECT_EQ(Evaluate(simulated, *trace, 2, 1).acted_on, 0);
}

TEST(OraclePredictor, GuessesAlikeFromEveryDistance) {
  const auto trace = RandomTrace();
  const std::vector<uint64_t> sequences = {1};
  const std::vector<uint32_t> positions = {17};
  const auto predict = [&](uint32_t layer, uint32_t distance) {
    OraclePredictor simulated(trace, 0.5, 3);
    RoutedLayer routed;
    routed.num_tokens = 1;
    routed.sequences = sequences;
    routed.positions = positions;
    for (uint32_t i = 0; i <= layer; ++i) {
      routed.layer = i;
      simulated.Observe(routed);
    }
    std::vector<ExpertPrediction> predictions;
    simulated.Predict(distance, predictions);
    std::vector<uint32_t> experts;
    for (const ExpertPrediction& prediction : predictions) experts.push_back(prediction.expert);
    return experts;
  };
  EXPECT_EQ(predict(0, 3), predict(2, 1));
  EXPECT_EQ(predict(0, 3).size(), kPerToken);
  EXPECT_THAT(predict(2, 2), IsEmpty()) << "there are four layers";
}

TEST(OraclePredictor, NamesNoWrongExpertWhereAllAreNeeded) {
  RoutingTrace all = {
      .model = "all", .num_layers = 2, .num_experts = 2, .experts_per_token = 2, .sequences = {}};
  all.sequences.emplace_back().expert_ids = {0, 1, 1, 0};
  const auto trace = std::make_shared<const RoutingTrace>(std::move(all));
  OraclePredictor simulated(trace, 0);
  EXPECT_EQ(Evaluate(simulated, *trace, 1, 1).acted_on, 0);
}

TEST(TraceOf, PutsEachSequencesTokensTogether) {
  // Two layers, top-1. Prompts of two tokens and of one, then one step of both.
  const std::vector<Routing> routings = {
      {.num_layers = 2, .num_tokens = 2, .experts_per_token = 1, .expert_ids = {0, 1, 2, 3}},
      {.num_layers = 2, .num_tokens = 1, .experts_per_token = 1, .expert_ids = {3, 0}},
      {.num_layers = 2, .num_tokens = 2, .experts_per_token = 1, .expert_ids = {1, 2, 3, 0}}};
  const RoutingTrace trace = TraceOf(routings, 2, "small", 4);
  EXPECT_EQ(trace.model, "small");
  EXPECT_EQ(trace.num_layers, 2);
  EXPECT_EQ(trace.num_experts, 4);
  EXPECT_EQ(trace.experts_per_token, 1);
  ASSERT_EQ(trace.sequences.size(), 2);
  EXPECT_EQ(trace.sequences[0].num_prompt_tokens, 2);
  EXPECT_THAT(trace.sequences[0].expert_ids, ElementsAre(0, 2, 1, 3, 1, 3));
  EXPECT_EQ(trace.sequences[1].num_prompt_tokens, 1);
  EXPECT_THAT(trace.sequences[1].expert_ids, ElementsAre(3, 0, 2, 0));
  EXPECT_THAT(trace.ForcedExperts(3, 3, 1), ElementsAre(0)) << "sequence 1, token 1";
  EXPECT_THAT(LookupsOf(routings, 4)[1], ElementsAre(6, 7));
}

}  // namespace
}  // namespace pregate
