#include "bench/lookup_cost.h"

#include "core/expert/expert_predictor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace pregate {
namespace {

TEST(LookupCost, MeasuresLookUpsHintsAndEveryPredictor) {
  LookupCostOptions options;
  options.num_layers = 3;
  options.num_experts = 6;
  options.top_k = 2;
  options.num_steps = 4;
  options.iterations = 5;
  const absl::StatusOr<LookupCost> cost = MeasureLookupCost(options);
  ASSERT_TRUE(cost.ok()) << cost.status();
  std::vector<Spread> spreads = {cost->lookup, cost->hint, cost->layer};
  std::vector<std::string> modes = {"none"};
  for (const LookupCost::Prediction& prediction : cost->predictions) {
    modes.push_back(prediction.mode);
    spreads.push_back(prediction.cost);
  }
  EXPECT_EQ(modes, PredictorNames());
  for (const Spread& spread : spreads) {
    EXPECT_GT(spread.min, 0);
    EXPECT_LE(spread.min, spread.median);
    EXPECT_LE(spread.median, spread.max);
  }
}

TEST(LookupCost, RefusesMoreExpertsThanThereAre) {
  LookupCostOptions options;
  options.num_experts = 6;
  options.top_k = 7;
  EXPECT_EQ(MeasureLookupCost(options).status(),
            absl::InvalidArgumentError("top-k: 7 experts of 6 were asked for"));
}

}  // namespace
}  // namespace pregate
