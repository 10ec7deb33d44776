// What every mode of --speculation promises.
#include "core/expert/expert_predictor.h"

#include <set>

#include "core/storage/whole_file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/contract/example_predictor.h"
#include "tests/support/synthetic_routing.h"

namespace pregate {
namespace {

using testing::IsEmpty;

constexpr PredictorShape kShape = {.num_layers = 5,
                                   .num_experts = 16,
                                   .experts_per_token = 2,
                                   .is_pregated = true,
                                   .has_gates = true};

class ExpertPredictorTest : public testing::TestWithParam<std::string> {
 protected:
  static std::unique_ptr<ExpertPredictor> Make(const PredictorShape& shape = kShape) {
    if (GetParam() == "last_follower") return MakeLastFollowerPredictor(shape);
    return MakePredictor(GetParam(), shape).value();
  }
  static std::vector<uint64_t> Sequences(uint32_t num_tokens, uint64_t first = 0) {
    std::vector<uint64_t> sequences(num_tokens);
    std::iota(sequences.begin(), sequences.end(), first);
    return sequences;
  }
  // Plays `steps` of `num_tokens` sequences; returns the share of the needed experts that were
  // among as many predictions one layer ahead, over the last half of the steps.
  static double Play(ExpertPredictor& predictor,
                     SyntheticRouting& routing,
                     int steps,
                     uint32_t num_tokens,
                     uint64_t first_sequence = 0) {
    double needed = 0;
    double found = 0;
    std::vector<ExpertPrediction> predictions;
    for (int step = 0; step < steps; ++step) {
      routing.BeginStep(Sequences(num_tokens, first_sequence));
      for (uint32_t layer = 0; layer < kShape.num_layers; ++layer) {
        predictor.Observe(routing.Layer(layer));
        predictor.Predict(1, predictions);
        if (layer + 1 == kShape.num_layers || step < steps / 2) continue;
        const std::vector<uint32_t> next = routing.Needed(layer + 1);
        needed += static_cast<double>(next.size());
        for (size_t i = 0; i < std::min(next.size(), predictions.size()); ++i) {
          found += std::binary_search(next.begin(), next.end(), predictions[i].expert) ? 1 : 0;
        }
      }
    }
    return found / needed;
  }
};

TEST_P(ExpertPredictorTest, IsCalledWhatItWasAskedFor) { EXPECT_EQ(Make()->name(), GetParam()); }

TEST_P(ExpertPredictorTest, GivesDistinctExpertsMostProbableFirst) {
  for (const bool is_permutation : {false, true}) {
    const auto predictor = Make();
    SyntheticRouting routing(kShape, is_permutation);
    size_t given = 0;
    for (int step = 0; step < 200; ++step) {
      const uint32_t num_tokens = std::vector<uint32_t>{1, 3, 64, 0, 100}[step % 5];
      routing.BeginStep(Sequences(num_tokens), /*is_prefill=*/step % 10 == 4);
      for (uint32_t layer = 0; layer < kShape.num_layers; ++layer) {
        predictor->Observe(routing.Layer(layer));
        for (const uint32_t distance : {1, 2}) {
          std::vector<ExpertPrediction> predictions = {{.expert = 99, .probability = 7}};
          predictor->Predict(distance, predictions);
          std::set<uint32_t> experts;
          for (size_t i = 0; i < predictions.size(); ++i) {
            ASSERT_LT(predictions[i].expert, kShape.num_experts);
            ASSERT_TRUE(experts.insert(predictions[i].expert).second);
            ASSERT_GE(predictions[i].probability, 0);
            ASSERT_LE(predictions[i].probability, i == 0 ? 1 : predictions[i - 1].probability);
          }
          given += predictions.size();
        }
      }
    }
    EXPECT_GT(given, 0);
  }
}

TEST_P(ExpertPredictorTest, SaysNothingBeyondTheLastLayerOrOfThePresentOne) {
  const auto predictor = Make();
  SyntheticRouting routing(kShape, true);
  Play(*predictor, routing, 20, 4);
  routing.BeginStep(Sequences(4));
  for (uint32_t layer = 0; layer < kShape.num_layers; ++layer) {
    predictor->Observe(routing.Layer(layer));
    for (const uint32_t distance : {0U, kShape.num_layers - layer, 100U, UINT32_MAX}) {
      std::vector<ExpertPrediction> predictions;
      predictor->Predict(distance, predictions);
      EXPECT_THAT(predictions, IsEmpty()) << "layer " << layer << " distance " << distance;
    }
  }
}

TEST_P(ExpertPredictorTest, LearnsAPermutation) {
  for (const uint32_t num_tokens : {1, 2}) {
    const auto predictor = Make();
    SyntheticRouting routing(kShape, true);
    EXPECT_GE(Play(*predictor, routing, 3000, num_tokens), 0.97) << num_tokens << " tokens";
  }
}

TEST_P(ExpertPredictorTest, IsDeterministic) {
  std::string states[2];
  for (std::string& state : states) {
    const auto predictor = Make();
    SyntheticRouting routing(kShape, true);
    Play(*predictor, routing, 100, 8);
    state = predictor->SaveState();
  }
  EXPECT_EQ(states[0], states[1]);
}

TEST_P(ExpertPredictorTest, KeepsNoMoreTheMoreItSees) {
  const auto predictor = Make();
  SyntheticRouting routing(kShape, false);
  Play(*predictor, routing, 1, 64);
  const size_t bytes = predictor->SaveState().size();
  for (uint64_t i = 0; i < 50; ++i) Play(*predictor, routing, 2, 64, i * 64);
  EXPECT_EQ(predictor->SaveState().size(), bytes);
}

TEST_P(ExpertPredictorTest, GoesOnFromItsState) {
  const auto learned = Make();
  SyntheticRouting routing(kShape, true);
  Play(*learned, routing, 2000, 2);
  const std::string state = learned->SaveState();

  const auto restored = Make();
  ASSERT_TRUE(restored->LoadState(state).ok()) << restored->LoadState(state);
  EXPECT_EQ(restored->SaveState(), state);
  if (state.empty()) return;  // learns anew, or nothing
  EXPECT_GE(Play(*restored, routing, 20, 2, /*first_sequence=*/1000), 0.97);
}

TEST_P(ExpertPredictorTest, RefusesWhatIsNotItsState) {
  const auto predictor = Make();
  SyntheticRouting routing(kShape, true);
  Play(*predictor, routing, 50, 2);
  const std::string state = predictor->SaveState();
  std::vector<std::string> others = {"nonsense", state + "x"};
  for (size_t bytes = 1; bytes < state.size(); bytes += 1 + state.size() / 50) {
    others.push_back(state.substr(0, bytes));
  }
  PredictorShape wider = kShape;
  wider.num_experts = 17;
  PredictorShape deeper = kShape;
  deeper.num_layers = 6;
  for (const PredictorShape& shape : {wider, deeper}) {
    if (!state.empty()) others.push_back(Make(shape)->SaveState());
  }
  for (const std::string& mode : PredictorNames()) {
    if (mode == "none" || mode == GetParam()) continue;
    std::string other = MakePredictor(mode, kShape).value()->SaveState();
    if (!other.empty()) others.push_back(std::move(other));
  }
  for (const std::string& other : others) {
    EXPECT_EQ(predictor->LoadState(other).code(), absl::StatusCode::kInvalidArgument)
        << other.size() << " bytes";
    EXPECT_EQ(predictor->SaveState(), state);
  }
}

TEST_P(ExpertPredictorTest, BearsLayersThatItDoesNotSee) {
  const auto predictor = Make();
  SyntheticRouting routing(kShape, true);
  std::vector<ExpertPrediction> predictions;
  for (int step = 0; step < 100; ++step) {
    routing.BeginStep(Sequences(step % 7));
    for (uint32_t layer = 0; layer < kShape.num_layers; ++layer) {
      if ((step + layer) % 3 == 0) continue;
      // Gates, too, may come and go.
      predictor->Observe(routing.Layer(layer, /*has_gates=*/step % 2 == 0));
      predictor->Predict(1 + layer % 2, predictions);
      for (const ExpertPrediction& prediction : predictions) {
        ASSERT_LT(prediction.expert, kShape.num_experts);
      }
    }
  }
}

TEST_P(ExpertPredictorTest, SaysNothingWithoutWhatItReads) {
  PredictorShape bare = kShape;
  bare.is_pregated = false;
  const auto predictor = Make();
  SyntheticRouting routing(bare, true);
  routing.BeginStep({1});
  std::vector<ExpertPrediction> predictions;
  predictor->Observe(routing.Layer(0, /*has_gates=*/false));
  predictor->Predict(1, predictions);
  const bool needs_more = GetParam() == "gate_lookahead" || GetParam() == "pregate";
  EXPECT_EQ(predictions.empty(), needs_more);
}

std::vector<std::string> Modes() {
  std::vector<std::string> modes = PredictorNames();
  modes.erase(std::find(modes.begin(), modes.end(), "none"));
  modes.emplace_back("last_follower");
  return modes;
}

TEST(ExampleOfAPredictor, IsTheOneInTheDocument) {
  const auto read = [](const std::string& path) {
    return ReadWholeFile(std::string(PREGATE_SOURCE_DIR "/") + path, 1 << 20).value();
  };
  const std::string header = read("tests/contract/example_predictor.h");
  const size_t begin = header.find("// Expects");
  const size_t end = header.find("inline std::unique_ptr");
  ASSERT_LT(begin, end);
  EXPECT_THAT(read("docs/extending.md"), testing::HasSubstr(header.substr(begin, end - begin)));
}

INSTANTIATE_TEST_SUITE_P(Modes,
                         ExpertPredictorTest,
                         testing::ValuesIn(Modes()),
                         [](const auto& mode) { return mode.param; });

}  // namespace
}  // namespace pregate
