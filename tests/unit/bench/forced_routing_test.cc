#include "bench/forced_routing.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/temp_folder.h"

namespace pregate {
namespace {

using ::testing::HasSubstr;

class ForcedRoutingTest : public testing::Test {
 protected:
  void SetUp() override {
    path_ = folder_.Write("trace.json",
                          R"({"model": "small", "num_layers": 1, "num_experts": 2, "top_k": 1,
                              "sequences": [{"id": "a", "experts": [[[1]]]}]})");
  }

  TempFolder folder_;
  std::string path_;
};

TEST_F(ForcedRoutingTest, IsTheModelsOwnWithoutAFile) {
  const absl::StatusOr<ForcedRouting> routing = ReadForcedRouting({});
  ASSERT_TRUE(routing.ok()) << routing.status();
  EXPECT_EQ(routing->trace, nullptr);
  EXPECT_EQ(CaptionOf(*routing), "");
  EXPECT_TRUE(ToJson(*routing).is_null());
}

TEST_F(ForcedRoutingTest, SaysThatTextIsNotReal) {
  ForcedRoutingFlags flags;
  flags.trace = path_;
  const absl::StatusOr<ForcedRouting> routing = ReadForcedRouting(flags);
  ASSERT_TRUE(routing.ok()) << routing.status();
  EXPECT_EQ(
      CaptionOf(*routing),
      "routing forced by " + path_ + " (of small, 1 sequences): speeds are real, text is not\n");
  EXPECT_EQ(ToJson(*routing)["model"], "small");
  EXPECT_TRUE(ToJson(*routing)["simulated_predictor"].is_null());
}

TEST_F(ForcedRoutingTest, ReadsWhatTheSimulatedPredictorKnows) {
  ForcedRoutingFlags flags;
  for (const Flag& flag : FlagsOf(flags)) {
    const std::string value = flag.name == "routing-trace"      ? path_
                              : flag.name == "simulated-recall" ? "0.9"
                                                                : "2";
    ASSERT_TRUE(flag.set(value).ok()) << flag.name;
  }
  const absl::StatusOr<ForcedRouting> routing = ReadForcedRouting(flags);
  ASSERT_TRUE(routing.ok()) << routing.status();
  ASSERT_TRUE(routing->simulated.has_value());
  EXPECT_EQ(NameOf(*routing->simulated), "simulated (recall 0.90, horizon 2)");
  EXPECT_EQ(ToJson(*routing)["simulated_predictor"]["recall"], 0.9);
}

TEST_F(ForcedRoutingTest, RefusesASimulationThatKnowsNothing) {
  ForcedRoutingFlags flags;
  flags.recall = 0.9;
  const absl::Status status = ReadForcedRouting(flags).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("--simulated-recall needs --routing-trace"));

  ForcedRoutingFlags horizon;
  horizon.trace = path_;
  horizon.horizon = 2;
  EXPECT_EQ(ReadForcedRouting(horizon).status().message(),
            "--simulated-horizon needs --simulated-recall");
}

TEST_F(ForcedRoutingTest, NamesAFileThatIsNotThere) {
  ForcedRoutingFlags flags;
  flags.trace = folder_ / "none";
  EXPECT_THAT(std::string(ReadForcedRouting(flags).status().message()),
              HasSubstr(folder_ / "none"));
}

}  // namespace
}  // namespace pregate
