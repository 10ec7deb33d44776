// What each eviction policy is meant to do, which the contract does not say.
#include "core/expert/eviction_policy.h"

#include <cmath>

#include "core/expert/eviction_belady.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace pregate {
namespace {

using ::testing::ElementsAre;

// 3 layers of 4 experts: layer 1 begins at expert 4.
constexpr EvictionShape kShape = {.num_layers = 3, .num_experts = 4};

std::vector<float> Worths(const EvictionPolicy& policy, const std::vector<uint32_t>& experts) {
  std::vector<float> worths(experts.size(), NAN);
  policy.Rank(experts, absl::MakeSpan(worths));
  return worths;
}

// A step that needs of each layer the expert given, in numbers of its layer.
void Step(EvictionPolicy& policy, const std::vector<uint32_t>& by_layer) {
  for (uint32_t layer = 0; layer < by_layer.size(); ++layer) {
    policy.OnLookup(layer, {layer * kShape.num_experts + by_layer[layer]});
  }
}

TEST(EwmaEviction, IsTheMovingAverageOfUsesLessTheWayToTheNext) {
  const auto policy = MakeEvictionPolicy("ewma", kShape).value();
  Step(*policy, {0, 0, 0});
  // Layer 0 is next, layer 1 two away, the present one three: it has just been.
  const std::vector<float> once = Worths(*policy, {0, 4, 8, 1});
  EXPECT_NEAR(once[0], 0.05, 1e-6);
  EXPECT_NEAR(once[1], 0.05 - 0.05, 1e-6);
  EXPECT_NEAR(once[2], 0.05 - 0.10, 1e-6);
  EXPECT_NEAR(once[3], 0, 1e-6) << "never used";
  Step(*policy, {1, 0, 1});
  const std::vector<float> twice = Worths(*policy, {0, 1, 4});
  EXPECT_NEAR(twice[0], 0.05 * 0.95, 1e-6);
  EXPECT_NEAR(twice[1], 0.05, 1e-6);
  EXPECT_NEAR(twice[2], 0.05 * 0.95 + 0.05 - 0.05, 1e-6);
}

TEST(EwmaEviction, AveragesComeToTheShareOfStepsHoweverManyThereAre) {
  const auto policy = MakeEvictionPolicy("ewma", kShape).value();
  for (int step = 0; step < 5000; ++step) {
    Step(*policy, {step % 4 == 0 ? 1U : 0U, 0, 0});
    if (step < 400) continue;
    const std::vector<float> worths = Worths(*policy, {0, 1, 2});
    ASSERT_NEAR(worths[0], 0.75, 0.04) << step;
    ASSERT_NEAR(worths[1], 0.25, 0.04) << step;
    ASSERT_EQ(worths[2], 0) << step;
  }
  EXPECT_TRUE(policy->ranks_by_use());
}

TEST(EwmaEviction, ForgetsWhatIsNoLongerUsed) {
  const auto policy = MakeEvictionPolicy("ewma", kShape).value();
  Step(*policy, {3, 0, 0});
  for (int step = 0; step < 3000; ++step) Step(*policy, {0, 0, 0});
  EXPECT_THAT(Worths(*policy, {3}), ElementsAre(0));
}

TEST(LfruEviction, DividesUsesByTheWholeStepsSinceTheLast) {
  const auto policy = MakeEvictionPolicy("lfru", kShape).value();
  for (int step = 0; step < 3; ++step) Step(*policy, {0, 0, 0});
  policy->OnLookup(0, {1});
  // Expert 0 of layer 0 was passed over once. What lies ahead was used less than a step ago.
  EXPECT_THAT(Worths(*policy, {0, 1, 4, 8, 5}), ElementsAre(1.5F, 1, 3, 3, 0));
  policy->OnLookup(1, {5});
  EXPECT_THAT(Worths(*policy, {0, 4, 5, 8}), ElementsAre(1.5F, 1.5F, 1, 3));
}

TEST(LruEviction, KeepsWhatWasUsedOrCameLast) {
  const auto policy = MakeEvictionPolicy("lru", kShape).value();
  Step(*policy, {0, 1, 2});
  policy->OnInsert(3);
  EXPECT_THAT(Worths(*policy, {0, 5, 10, 3}), ElementsAre(-2, -1, 0, 0));
}

TEST(LfuEviction, CountsUses) {
  const auto policy = MakeEvictionPolicy("lfu", kShape).value();
  Step(*policy, {0, 1, 2});
  Step(*policy, {0, 1, 3});
  policy->OnInsert(2);
  EXPECT_THAT(Worths(*policy, {0, 5, 10, 2}), ElementsAre(2, 2, 1, 0));
}

TEST(FifoEviction, KeepsWhatCameLast) {
  const auto policy = MakeEvictionPolicy("fifo", kShape).value();
  policy->OnInsert(0);
  policy->OnInsert(5);
  Step(*policy, {0, 1, 2});
  EXPECT_THAT(Worths(*policy, {0, 5}), ElementsAre(-1, 0));
}

TEST(BeladyEviction, KnowsTheNextUseOfEach) {
  BeladyEviction policy({{0, 1}, {4}, {8}, {1}, {5, 4}, {8}}, kShape);
  EXPECT_EQ(policy.name(), "belady");
  EXPECT_THAT(Worths(policy, {0, 4, 8}), ElementsAre(0, -1, -2));
  policy.OnLookup(0, {1, 0});  // in whatever order
  policy.OnLookup(1, {4});
  const std::vector<float> worths = Worths(policy, {8, 1, 4, 5, 0});
  EXPECT_THAT(absl::MakeConstSpan(worths).first(4), ElementsAre(0, -1, -2, -2));
  EXPECT_LT(worths[4], -1e9) << "never again";
}

}  // namespace
}  // namespace pregate
