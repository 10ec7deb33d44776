#include "bench/replay_plots.h"

#include <filesystem>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/temp_folder.h"
#include "tests/unit/bench/made_up_trace.h"

namespace pregate {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

class ReplayPlots : public ::testing::Test {
 protected:
  ReplayPlots() {
    plan_.policies = {"lru", "belady"};
    plan_.capacities = {"50%", "25%"};
    plan_.streams = {1, 2};
    plan_.predictors.resize(2);
    plan_.predictors[0].mode = "layer_minus_1";
    plan_.predictors[1].simulated = {.recall = 0.5, .horizon = 1};
  }

  ReplayReport Play() const {
    return *RunReplay(std::make_shared<RoutingTrace>(trace_), plan_, [] {});
  }

  const RoutingTrace trace_ = MadeUpTrace();
  ReplayPlan plan_;
};

TEST_F(ReplayPlots, PoliciesAreLinesOverCapacity) {
  const ReplayReport report = Play();
  const LineChart chart = PlotPolicies(trace_, report, 1);
  ASSERT_EQ(chart.series.size(), 2u);
  EXPECT_EQ(chart.series[0].name, "lru");
  EXPECT_FALSE(chart.series[0].is_bound);
  // The capacities were given the other way round.
  EXPECT_THAT(chart.series[0].points,
              ElementsAre(Pair(0.25, report.cases[6].result.hit_rate()),
                          Pair(0.5, report.cases[0].result.hit_rate())));
  EXPECT_EQ(chart.series[1].name, "belady");
  EXPECT_TRUE(chart.series[1].is_bound);
  EXPECT_EQ(chart.title, "Hit rate by eviction policy: made up, one sequence at a time");
}

TEST_F(ReplayPlots, PredictorsAreLinesOfOnePolicy) {
  const ReplayReport report = Play();
  const LineChart chart = PlotPredictors(trace_, report, 2, "belady");
  ASSERT_EQ(chart.series.size(), 3u);
  EXPECT_EQ(chart.series[0].name, "none");
  EXPECT_EQ(chart.series[1].name, "layer_minus_1");
  EXPECT_FALSE(chart.series[1].is_bound);
  EXPECT_EQ(chart.series[2].name, "simulated (recall 0.50, horizon 1)");
  EXPECT_TRUE(chart.series[2].is_bound);
  EXPECT_THAT(chart.series[1].points,
              ElementsAre(Pair(0.25, report.cases[12 + 10].result.hit_rate()),
                          Pair(0.5, report.cases[12 + 4].result.hit_rate())));
}

TEST_F(ReplayPlots, PrefetchesAreSharesOfTheMissesWithoutThem) {
  const ReplayReport report = Play();
  const BarChart chart = PlotPrefetches(trace_, report, 1, "lru");
  EXPECT_THAT(chart.categories,
              ElementsAre("layer_minus_1, 50%",
                          "simulated (recall 0.50, horizon 1), 50%",
                          "layer_minus_1, 25%",
                          "simulated (recall 0.50, horizon 1), 25%"));
  const auto misses = static_cast<double>(report.cases[6].result.misses());
  ASSERT_GT(misses, 0);
  EXPECT_EQ(chart.series[0].values[2], static_cast<double>(report.cases[7].result.useful) / misses);
  EXPECT_EQ(chart.series[1].values[2], static_cast<double>(report.cases[7].result.wasted) / misses);
}

TEST_F(ReplayPlots, RoutingIsTheShareOfTokensOfEachExpert) {
  RoutingTrace trace = {
      .model = "", .num_layers = 2, .num_experts = 3, .experts_per_token = 1, .sequences = {}};
  trace.sequences.push_back({.id = "", .num_prompt_tokens = 1, .expert_ids = {0, 2, 1, 2}});
  trace.sequences.push_back({.id = "", .num_prompt_tokens = 0, .expert_ids = {0, 2, 0, 1}});
  const HeatMap map = PlotRouting(trace);
  EXPECT_EQ(map.num_columns, 3u);
  EXPECT_THAT(map.values, ElementsAre(0.75, 0.25, 0, 0, 0.25, 0.75));
  EXPECT_EQ(map.title, "Experts by layer");
}

TEST_F(ReplayPlots, AllGoIntoAFolder) {
  const TempFolder folder;
  const auto files = [&](const std::string& name) {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder / name)) {
      names.push_back(entry.path().filename().string());
    }
    return names;
  };
  const absl::Status status = WriteReplayPlots(folder / "all", trace_, plan_, Play());
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_THAT(files("all"),
              UnorderedElementsAre("routing.svg",
                                   "policies_1.svg",
                                   "predictors_1.svg",
                                   "prefetch_1.svg",
                                   "policies_2.svg",
                                   "predictors_2.svg",
                                   "prefetch_2.svg"));
  plan_.predictors.clear();
  plan_.streams = {4};
  ASSERT_TRUE(WriteReplayPlots(folder / "none", trace_, plan_, Play()).ok());
  EXPECT_THAT(files("none"), UnorderedElementsAre("routing.svg", "policies_4.svg"));
}

}  // namespace
}  // namespace pregate
