#include "core/engine/step_rate.h"

#include "gtest/gtest.h"

namespace pregate {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr uint32_t kMaxBatchTokens = 100;

TEST(StepRate, PromisesNothingBeforeTheFirstStep) {
  EXPECT_EQ(StepRate(kMaxBatchTokens).AtLeast(1000), Duration(0));
}

TEST(StepRate, TakesAFullStepForEachPartOfAPromptAndOneForTheRest) {
  StepRate rate(kMaxBatchTokens);
  rate.OnStep(100, seconds(8));
  rate.OnStep(1, seconds(2));
  EXPECT_EQ(rate.AtLeast(1), seconds(2));
  EXPECT_EQ(rate.AtLeast(99), seconds(2));
  EXPECT_EQ(rate.AtLeast(100), seconds(8));
  EXPECT_EQ(rate.AtLeast(201), seconds(18));
}

TEST(StepRate, AFullStepIsNoFasterThanAnyAsLongAsNoneWasSeen) {
  StepRate rate(kMaxBatchTokens);
  rate.OnStep(1, seconds(2));
  EXPECT_EQ(rate.AtLeast(300), seconds(6));
}

TEST(StepRate, FollowsFasterStepsAtOnceAndSlowerOnesInTime) {
  StepRate rate(kMaxBatchTokens);
  rate.OnStep(1, seconds(10));
  rate.OnStep(1, milliseconds(10));
  EXPECT_EQ(rate.AtLeast(1), milliseconds(10));
  rate.OnStep(1, seconds(10));
  EXPECT_NEAR(ToSeconds(rate.AtLeast(1)), 0.01 * StepRate::kDrift, 1e-9);
  for (int i = 0; i < 200; ++i) rate.OnStep(1, seconds(10));
  EXPECT_EQ(rate.AtLeast(1), seconds(10));
}

TEST(StepRate, RefusesNobodyForEver) {
  StepRate rate(kMaxBatchTokens);
  rate.OnStep(100, seconds(20));
  int refusals = 0;
  for (; rate.AtLeast(100) > seconds(10); ++refusals) rate.OnRefusal();
  EXPECT_GT(refusals, 1);
  EXPECT_LT(refusals, 20);
}

}  // namespace
}  // namespace pregate
