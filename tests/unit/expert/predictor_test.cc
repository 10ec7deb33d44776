#include <cmath>
#include <random>

#include "core/expert/expert_predictor.h"
#include "core/expert/prediction_list.h"
#include "core/expert/routing_regression.h"
#include "core/expert/token_history.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/synthetic_routing.h"

namespace pregate {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr PredictorShape kShape = {.num_layers = 4,
                                   .num_experts = 8,
                                   .experts_per_token = 2,
                                   .is_pregated = false,
                                   .has_gates = true};

std::vector<uint32_t> ExpertsOf(const std::vector<ExpertPrediction>& predictions) {
  std::vector<uint32_t> experts;
  for (const ExpertPrediction& prediction : predictions) experts.push_back(prediction.expert);
  return experts;
}

TEST(Predictors, AreMadeByName) {
  EXPECT_THAT(
      PredictorNames(),
      ElementsAre("none", "layer_minus_1", "multi_layer", "gate_lookahead", "pregate", "adaptive"));
  EXPECT_EQ(MakePredictor("none", kShape).value(), nullptr);
  const absl::Status unknown = MakePredictor("psychic", kShape).status();
  EXPECT_EQ(unknown.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(unknown.message(), HasSubstr("'psychic' is not one of none, layer_minus_1"));
}

TEST(Predictors, NeedWhatTheyRead) {
  EXPECT_EQ(MakePredictor("pregate", kShape).status().code(),
            absl::StatusCode::kFailedPrecondition);
  PredictorShape gateless = kShape;
  gateless.has_gates = false;
  EXPECT_EQ(MakePredictor("gate_lookahead", gateless).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(MakePredictor("adaptive", gateless).ok());
}

TEST(StepProbabilities, CombinesTokensAsIndependent) {
  StepProbabilities step(3);
  step.Add(std::vector<float>{0.5F, 0.1F, 0});
  step.Add(std::vector<float>{0.5F, 0.2F, 0});
  std::vector<ExpertPrediction> predictions;
  step.Take(1, predictions);
  ASSERT_EQ(predictions.size(), 2);  // what is improbable is not mentioned
  EXPECT_EQ(predictions[0].expert, 0);
  EXPECT_FLOAT_EQ(predictions[0].probability, 0.75F);
  EXPECT_FLOAT_EQ(predictions[1].probability, 1 - 0.9F * 0.8F);
  step.Take(1, predictions);
  EXPECT_THAT(predictions, IsEmpty());
}

TEST(StepProbabilities, LetsASampleStandForTheRest) {
  StepProbabilities step(1);
  step.Add(std::vector<float>{0.1F});
  std::vector<ExpertPrediction> predictions;
  step.Take(3, predictions);
  ASSERT_EQ(predictions.size(), 1);
  EXPECT_NEAR(predictions[0].probability, 1 - 0.9 * 0.9 * 0.9, 1e-6);
}

TEST(RowSample, SpreadsOverAllRows) {
  const RowSample few(3, 4);
  EXPECT_EQ(few.size(), 3);
  EXPECT_EQ(few[2], 2);
  EXPECT_EQ(few.rows_each(), 1);
  const RowSample many(10, 4);
  EXPECT_THAT((std::vector<uint32_t>{many[0], many[1], many[2], many[3]}), ElementsAre(0, 2, 5, 7));
  EXPECT_EQ(many.rows_each(), 2.5F);
}

TEST(CountToActOn, CoversAShareOfTheProbability) {
  const std::vector<ExpertPrediction> predictions = {{0, 0.9F}, {1, 0.5F}, {2, 0.4F}, {3, 0.2F}};
  EXPECT_EQ(CountToActOn(predictions, 0, 0), 0);
  EXPECT_EQ(CountToActOn(predictions, 0.4, 0), 1);
  EXPECT_EQ(CountToActOn(predictions, 0.5, 0), 2);
  EXPECT_EQ(CountToActOn(predictions, 0.69, 0), 2);
  EXPECT_EQ(CountToActOn(predictions, 1, 0), 4);
  EXPECT_EQ(CountToActOn(predictions, 1, 0.45), 2);
  EXPECT_EQ(CountToActOn({}, 1, 0), 0);
}

TEST(TokenHistory, RemembersLayersOfTheStepAndTheTokenBefore) {
  TokenHistory history(kShape);
  const std::vector<uint64_t> sequences = {7, 8};
  const auto observe = [&](uint32_t layer, const std::vector<uint32_t>& ids) {
    history.Observe({.layer = layer,
                     .num_tokens = 2,
                     .experts_per_token = 2,
                     .expert_ids = ids,
                     .sequences = sequences,
                     .next_expert_ids = {}});
  };
  observe(0, {0, 1, 2, 3});
  EXPECT_THAT(history.TokenBefore(0, 0), IsEmpty());
  EXPECT_THAT(history.TokenBefore(1, 0), IsEmpty());
  observe(1, {4, 5, 6, 7});
  EXPECT_THAT(history.Experts(0, 1), ElementsAre(6, 7));
  EXPECT_THAT(history.Experts(1, 1), ElementsAre(2, 3));
  EXPECT_THAT(history.Experts(2, 1), IsEmpty());

  observe(0, {1, 2, 3, 4});  // the next step
  EXPECT_THAT(history.Experts(1, 0), IsEmpty());
  EXPECT_THAT(history.TokenBefore(0, 1), ElementsAre(2, 3));
  EXPECT_THAT(history.TokenBefore(1, 1), ElementsAre(6, 7));
  EXPECT_THAT(history.TokenBefore(2, 1), IsEmpty());  // was never seen
}

TEST(TokenHistory, KnowsOfAPromptOnlyWhatWasBeforeIt) {
  TokenHistory history(kShape);
  const std::vector<uint64_t> sequences = {7, 7};
  const std::vector<uint32_t> first = {0, 1, 2, 3};
  const std::vector<uint32_t> second = {4, 5, 6, 7};
  for (const auto& ids : {first, second}) {
    history.Observe({.layer = 0,
                     .num_tokens = 2,
                     .experts_per_token = 2,
                     .expert_ids = ids,
                     .sequences = sequences,
                     .is_prefill = true,
                     .next_expert_ids = {}});
  }
  EXPECT_THAT(history.TokenBefore(0, 0), ElementsAre(2, 3));
  EXPECT_THAT(history.TokenBefore(0, 1), IsEmpty());
}

TEST(TokenHistory, ForgetsSequencesForNewerOnes) {
  TokenHistory history(kShape);
  const std::vector<uint32_t> ids = {0, 1};
  for (const uint64_t sequence : {uint64_t{3}, uint64_t{3} + TokenHistory::kSequences}) {
    const std::vector<uint64_t> sequences = {sequence};
    history.Observe({.layer = 0,
                     .num_tokens = 1,
                     .experts_per_token = 2,
                     .expert_ids = ids,
                     .sequences = sequences,
                     .next_expert_ids = {}});
    EXPECT_THAT(history.TokenBefore(0, 0), IsEmpty());
  }
}

TEST(RoutingRegression, BeginsWithWhatEveryExpertIsExpectedToGet) {
  RoutingRegression regression(kShape);
  for (uint32_t expert = 0; expert < kShape.num_experts; ++expert) {
    EXPECT_NEAR(regression.Predict(1, {})[expert], 0.25, 1e-3);
  }
}

// Expert 0 follows in nine of ten cases where the source has expert 3, and else in one of ten.
TEST(RoutingRegression, LearnsProbabilities) {
  RoutingRegression regression(kShape);
  std::mt19937 random(3);
  const std::vector<uint16_t> often = {3, 4};
  const std::vector<uint16_t> seldom = {5, 4};
  double expected[2] = {};
  constexpr int kTokens = 4000;
  for (int token = 0; token < 2 * kTokens; ++token) {
    const bool is_often = token % 2 == 0;
    const RoutingRegression::Sources sources = {is_often ? often : seldom};
    if (token >= kTokens) expected[is_often ? 1 : 0] += regression.Predict(1, sources)[0];
    const bool follows = random() % 10 < (is_often ? 9 : 1);
    const std::vector<uint16_t> chosen = {static_cast<uint16_t>(follows ? 0 : 1), 2};
    regression.Learn(1, sources, chosen);
  }
  EXPECT_NEAR(expected[1] / (kTokens / 2), 0.9, 0.05);
  EXPECT_NEAR(expected[0] / (kTokens / 2), 0.1, 0.05);
  EXPECT_NEAR(regression.Predict(1, {often})[2], 1, 0.05);
  // Another layer has learned nothing.
  EXPECT_NEAR(regression.Predict(2, {often})[0], 0.25, 1e-3);
}

// Two of the layers' experts are what the sequence's token before had; nothing else tells.
TEST(MultiLayerPredictor, SeesThatASequenceRepeatsItself) {
  const auto predictor = MakePredictor("multi_layer", kShape).value();
  std::vector<ExpertPrediction> predictions;
  int found = 0;
  for (int step = 0; step < 400; ++step) {
    // Two sequences take turns; what one of them chooses says nothing about the other.
    const std::vector<uint64_t> sequences = {static_cast<uint64_t>(step % 2)};
    const std::vector<std::vector<uint32_t>> experts = {
        {0, 1}, step % 2 == 0 ? std::vector<uint32_t>{2, 3} : std::vector<uint32_t>{5, 6}};
    for (uint32_t layer = 0; layer < 2; ++layer) {
      predictor->Observe({.layer = layer,
                          .num_tokens = 1,
                          .experts_per_token = 2,
                          .expert_ids = experts[layer],
                          .sequences = sequences,
                          .next_expert_ids = {}});
      if (layer == 1 || step < 200) continue;
      predictor->Predict(1, predictions);
      predictions.resize(2);
      if (ExpertsOf(predictions) == experts[1]) ++found;
    }
  }
  EXPECT_GE(found, 190);
}

TEST(GateLookaheadPredictor, LearnsWhatARankIsWorth) {
  const auto predictor = MakePredictor("gate_lookahead", kShape).value();
  SyntheticRouting routing(kShape, true);
  std::vector<ExpertPrediction> predictions;
  for (int step = 0; step < 500; ++step) {
    routing.BeginStep({1});
    for (uint32_t layer = 0; layer < kShape.num_layers; ++layer) {
      predictor->Observe(routing.Layer(layer));
      predictor->Predict(1, predictions);
    }
  }
  predictor->Observe(routing.Layer(0));
  predictor->Predict(1, predictions);
  // The gates were always right: the first two are certain, and the others not worth their mention.
  ASSERT_EQ(predictions.size(), 2);
  EXPECT_NEAR(predictions[0].probability, 1, 0.01);
  EXPECT_NEAR(predictions[1].probability, 1, 0.01);
}

TEST(GateLookaheadPredictor, LooksTwoLayersAhead) {
  const auto predictor = MakePredictor("gate_lookahead", kShape).value();
  SyntheticRouting routing(kShape, false);
  routing.BeginStep({1, 2});
  std::vector<ExpertPrediction> predictions;
  predictor->Observe(routing.Layer(1));
  predictor->Predict(2, predictions);
  const std::vector<uint32_t> needed = routing.Needed(3);
  ASSERT_GE(predictions.size(), needed.size());
  predictions.resize(needed.size());
  EXPECT_THAT(ExpertsOf(predictions), testing::UnorderedElementsAreArray(needed));
}

TEST(PregatePredictor, IsCertainOneLayerAheadAndSilentBeyond) {
  PredictorShape shape = kShape;
  shape.is_pregated = true;
  const auto predictor = MakePredictor("pregate", shape).value();
  SyntheticRouting routing(shape, false);
  routing.BeginStep({1, 2, 3});
  std::vector<ExpertPrediction> predictions;
  predictor->Observe(routing.Layer(0));
  predictor->Predict(2, predictions);
  EXPECT_THAT(predictions, IsEmpty());
  predictor->Predict(1, predictions);
  EXPECT_EQ(ExpertsOf(predictions), routing.Needed(1));
  for (const ExpertPrediction& prediction : predictions) EXPECT_EQ(prediction.probability, 1);
}

class AdaptivePredictorTest : public testing::Test {
 protected:
  // Predictions of the layers behind the first in the last of `steps`.
  size_t Play(SyntheticRouting& routing, int steps, bool has_gates) {
    size_t given = 0;
    for (int step = 0; step < steps; ++step) {
      given = 0;
      routing.BeginStep({1});
      for (uint32_t layer = 0; layer < kShape.num_layers; ++layer) {
        predictor_->Observe(routing.Layer(layer, has_gates));
        predictor_->Predict(1, predictions_);
        given += predictions_.size();
      }
    }
    return given;
  }

  // Of 64 experts, so that nobody is right by chance.
  static constexpr PredictorShape kShape = {.num_layers = 4,
                                            .num_experts = 64,
                                            .experts_per_token = 2,
                                            .is_pregated = false,
                                            .has_gates = true};
  std::unique_ptr<ExpertPredictor> predictor_ = MakePredictor("adaptive", kShape).value();
  std::vector<ExpertPrediction> predictions_;
};

TEST_F(AdaptivePredictorTest, GoesOffWhereNothingCanBeToldAndOnAgain) {
  SyntheticRouting noise(kShape, false);
  EXPECT_EQ(Play(noise, 500, /*has_gates=*/false), 0);
  SyntheticRouting order(kShape, true);
  EXPECT_GT(Play(order, 5000, /*has_gates=*/false), 0);
}

TEST_F(AdaptivePredictorTest, FollowsTheGatesWhereTheyAreRight) {
  SyntheticRouting noise(kShape, false);
  Play(noise, 500, /*has_gates=*/true);
  noise.BeginStep({1});
  predictor_->Observe(noise.Layer(0));
  predictor_->Predict(1, predictions_);
  ASSERT_GE(predictions_.size(), 2);
  EXPECT_GT(predictions_[1].probability, 0.9);
  predictions_.resize(2);
  EXPECT_THAT(ExpertsOf(predictions_), testing::UnorderedElementsAreArray(noise.Needed(1)));
}

}  // namespace
}  // namespace pregate
