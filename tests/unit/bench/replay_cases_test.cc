#include "bench/replay_cases.h"

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/bench/made_up_trace.h"

namespace pregate {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

ReplayPredictor Mode(const std::string& mode) {
  ReplayPredictor predictor;
  predictor.mode = mode;
  return predictor;
}

ReplayPredictor Simulated(double recall, uint32_t horizon) {
  ReplayPredictor predictor;
  predictor.simulated = {.recall = recall, .horizon = horizon};
  return predictor;
}

ReplayPlan Plan() {
  ReplayPlan plan;
  plan.policies = {"lru", "belady"};
  plan.capacities = {"25%", "12"};
  plan.streams = {1, 2};
  plan.predictors = {Mode("multi_layer"), Simulated(1, 2)};
  plan.num_threads = 3;
  return plan;
}

ReplayReport Play(const ReplayPlan& plan) {
  const absl::StatusOr<ReplayReport> report =
      RunReplay(std::make_shared<RoutingTrace>(MadeUpTrace()), plan, [] {});
  EXPECT_TRUE(report.ok()) << report.status();
  return report.ok() ? *report : ReplayReport();
}

TEST(RunReplay, PlaysEveryPolicyAtEveryCapacityWithEveryPredictor) {
  const ReplayPlan plan = Plan();
  uint64_t num_done = 0;
  const absl::StatusOr<ReplayReport> report =
      RunReplay(std::make_shared<RoutingTrace>(MadeUpTrace()), plan, [&] { ++num_done; });
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(num_done, NumReplays(plan));
  EXPECT_EQ(num_done, report->cases.size() + report->recalls.size());
  ASSERT_EQ(report->cases.size(), 2u * 2 * 2 * 3);
  std::vector<std::string> first;
  for (size_t i = 0; i < 7; ++i) {
    const ReplayCase& one = report->cases[i];
    first.push_back(
        absl::StrCat(one.num_streams, " ", one.num_slots, " ", one.policy, " ", one.predictor));
  }
  EXPECT_THAT(first,
              ElementsAre("1 6 lru none",
                          "1 6 lru multi_layer",
                          "1 6 lru simulated (recall 1.00, horizon 2)",
                          "1 6 belady none",
                          "1 6 belady multi_layer",
                          "1 6 belady simulated (recall 1.00, horizon 2)",
                          "1 12 lru none"));
  EXPECT_EQ(report->cases.back().num_streams, 2u);
  ASSERT_EQ(report->recalls.size(), 2u * 3) << "the simulated one is asked two layers ahead too";
  EXPECT_EQ(report->recalls[2].distance, 2u);
  EXPECT_EQ(report->recalls[2].evaluation.recall(), 1);
}

TEST(RunReplay, IsTheSameOnAnyNumberOfThreads) {
  ReplayPlan plan = Plan();
  const ReplayReport parallel = Play(plan);
  plan.num_threads = 1;
  const ReplayReport serial = Play(plan);
  for (size_t i = 0; i < serial.cases.size(); ++i) {
    const ReplayResult& a = serial.cases[i].result;
    const ReplayResult& b = parallel.cases[i].result;
    EXPECT_GT(a.lookups, 0u);
    EXPECT_EQ(a.hits, b.hits) << i;
    EXPECT_EQ(a.prefetched, b.prefetched) << i;
    EXPECT_EQ(a.useful, b.useful) << i;
  }
}

TEST(RunReplay, ForesightRaisesTheHitRate) {
  const ReplayReport report = Play(Plan());
  const ReplayResult& blind = report.cases[0].result;
  const ReplayResult& learned = report.cases[1].result;
  const ReplayResult& perfect = report.cases[2].result;
  EXPECT_EQ(blind.prefetched, 0u);
  EXPECT_GT(learned.hits, blind.hits);
  EXPECT_GT(perfect.hits, learned.hits);
  EXPECT_EQ(perfect.wasted, 0u);
  // Only the first layer of each of 60 steps can miss.
  EXPECT_LE(perfect.misses(), 2u * 60);
}

TEST(RunReplay, PrefetchesNoMoreThanThePlanAllows) {
  ReplayPlan plan = Plan();
  plan.loads_per_layer = 1;
  EXPECT_LE(Play(plan).cases[2].result.prefetched, 2u * 60) << "two layers are predicted a step";
}

TEST(RunReplay, CountsLookupsOfWhatAServerRunsOnly) {
  ReplayPlan plan = Plan();
  plan.policies = {"belady"};
  EXPECT_EQ(Play(plan).lookups_per_second_per_core(), 0);
  EXPECT_GT(Play(Plan()).lookups_per_second_per_core(), 0);
}

TEST(RunReplay, RefusesWhatATraceCannotBePlayedThrough) {
  const auto refusal = [](const ReplayPlan& plan) {
    return std::string(
        RunReplay(std::make_shared<RoutingTrace>(MadeUpTrace()), plan, [] {}).status().message());
  };
  ReplayPlan plan = Plan();
  plan.policies = {"mru"};
  EXPECT_THAT(refusal(plan), HasSubstr("'mru'"));
  plan = Plan();
  plan.predictors = {Mode("gate_lookahead")};
  EXPECT_THAT(refusal(plan), HasSubstr("gate_lookahead needs gates"));
  plan = Plan();
  plan.capacities = {"1GiB"};
  EXPECT_THAT(refusal(plan), HasSubstr("'1GiB' is not a share"));
}

TEST(ReplayNames, AreWhatCanBePlayed) {
  EXPECT_THAT(ReplayPolicyNames(), Contains("belady"));
  EXPECT_THAT(ReplayPolicyNames(), Contains("ewma"));
  EXPECT_THAT(HistoryPredictorNames(), Contains("layer_minus_1"));
  EXPECT_THAT(HistoryPredictorNames(), Contains("multi_layer"));
  for (const char* needs_a_model : {"none", "pregate", "gate_lookahead"}) {
    EXPECT_THAT(HistoryPredictorNames(), Not(Contains(needs_a_model)));
  }
}

TEST(ReplayNames, SayThatAPredictorIsSimulated) {
  EXPECT_EQ(Simulated(0.9, 2).name(), "simulated (recall 0.90, horizon 2)");
  EXPECT_EQ(Mode("adaptive").name(), "adaptive");
}

TEST(CheckReplayCapacity, TakesSharesAndNumbersOfExperts) {
  for (const char* capacity : {"25%", "0.5%", "100%", "1", "96"}) {
    EXPECT_TRUE(CheckReplayCapacity(capacity).ok()) << capacity;
  }
  for (const char* capacity : {"", "0", "0%", "101%", "-1", "1GiB", "x", "nan%"}) {
    EXPECT_EQ(CheckReplayCapacity(capacity).code(), absl::StatusCode::kInvalidArgument) << capacity;
  }
}

}  // namespace
}  // namespace pregate
