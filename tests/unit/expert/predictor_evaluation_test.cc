#include "core/expert/predictor_evaluation.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/fake_clock.h"

namespace pregate {
namespace {

// Expects expert 0 with 0.9, 1 with 0.6, and 2 with 0.3 in whatever layer; takes a millisecond.
class FixedPredictor final : public ExpertPredictor {
 public:
  explicit FixedPredictor(FakeClock& clock) : clock_(clock) {}
  absl::string_view name() const override { return "fixed"; }
  void Observe(const RoutedLayer& routed) override {
    clock_.Advance(std::chrono::milliseconds(1));
    sequences_.emplace_back(routed.sequences.begin(), routed.sequences.end());
  }
  void Predict(uint32_t, std::vector<ExpertPrediction>& predictions) override {
    predictions = {{0, 0.9F}, {1, 0.6F}, {2, 0.3F}};
  }
  const std::vector<std::vector<uint64_t>>& sequences() const { return sequences_; }

 private:
  FakeClock& clock_;
  std::vector<std::vector<uint64_t>> sequences_;
};

// Two layers, one expert a token.
RoutingTrace Trace(const std::vector<std::vector<uint16_t>>& second_layers) {
  RoutingTrace trace = {.model = "made up",
                        .num_layers = 2,
                        .num_experts = 4,
                        .experts_per_token = 1,
                        .sequences = {}};
  for (const std::vector<uint16_t>& experts : second_layers) {
    RoutingTrace::Sequence& sequence = trace.sequences.emplace_back();
    for (const uint16_t expert : experts) {
      sequence.expert_ids.push_back(3);
      sequence.expert_ids.push_back(expert);
    }
  }
  return trace;
}

class PredictorEvaluationTest : public testing::Test {
 protected:
  FakeClock clock_;
  FixedPredictor predictor_{clock_};
};

TEST_F(PredictorEvaluationTest, CountsWhatWasFoundAmongTheFirst) {
  const PredictorEvaluation result =
      EvaluatePredictor(predictor_, Trace({{0, 1, 3, 0}}), clock_, {.aggressiveness = 0.8});
  EXPECT_EQ(result.layers[0].needed, 0);  // nothing can be said of the first layer
  EXPECT_EQ(result.layers[1],
            (PredictorEvaluation::Layer{.needed = 4, .found = 2, .found_at_twice = 3}));
  EXPECT_EQ(result.recall(), 0.5);
  EXPECT_EQ(result.recall_at_twice(), 0.75);
  // 0.8 of 1.8 is covered by two predictions, in each of four steps; three were right.
  EXPECT_EQ(result.acted_on, 8);
  EXPECT_EQ(result.wasted_share(), 5.0 / 8);
  EXPECT_NEAR(result.seconds_per_layer(), 0.001, 1e-9);
}

TEST_F(PredictorEvaluationTest, CountsAnExpertOnceForAllStreams) {
  const PredictorEvaluation result = EvaluatePredictor(
      predictor_, Trace({{0}, {0}, {1}}), clock_, {.streams = 3, .aggressiveness = 1});
  EXPECT_EQ(result.layers[1],
            (PredictorEvaluation::Layer{.needed = 2, .found = 2, .found_at_twice = 2}));
  EXPECT_EQ(result.acted_on, 3);
  EXPECT_EQ(result.wasted, 1);
}

TEST_F(PredictorEvaluationTest, ReplacesFinishedSequences) {
  EvaluatePredictor(predictor_, Trace({{0, 0, 0}, {1}, {}, {2}}), clock_, {.streams = 2});
  std::vector<std::vector<uint64_t>> steps;
  for (size_t i = 0; i < predictor_.sequences().size(); i += 2) {
    steps.push_back(predictor_.sequences()[i]);
  }
  EXPECT_EQ(steps, (std::vector<std::vector<uint64_t>>{{0, 1}, {0, 3}, {0}}));
}

TEST_F(PredictorEvaluationTest, CountsTheSequencesItIsTold) {
  PredictorEvaluation::Options options;
  options.counts = [](size_t sequence) { return sequence == 1; };
  const PredictorEvaluation result =
      EvaluatePredictor(predictor_, Trace({{0, 0, 0}, {1}}), clock_, options);
  EXPECT_EQ(result.layers[1].needed, 1);
  EXPECT_EQ(predictor_.sequences().size(), 8);  // but shows all
}

}  // namespace
}  // namespace pregate
