// What every eviction policy promises.
#include "core/expert/eviction_policy.h"

#include <algorithm>
#include <cmath>

#include "core/expert/eviction_belady.h"
#include "core/expert/replay.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace pregate {
namespace {

constexpr EvictionShape kShape = {.num_layers = 3, .num_experts = 4};

class EvictionPolicyTest : public testing::TestWithParam<std::string> {
 protected:
  EvictionPolicyTest() : policy_(MakeEvictionPolicy(GetParam(), kShape).value()) {}

  float Worth(uint32_t expert) const {
    float worth = NAN;
    policy_->Rank({expert}, absl::MakeSpan(&worth, 1));
    return worth;
  }
  void Use(uint32_t layer, uint32_t expert) {
    const uint32_t flat = layer * kShape.num_experts + expert;
    policy_->OnLookup(layer, {flat});
    policy_->OnInsert(flat);
  }

  std::unique_ptr<EvictionPolicy> policy_;
};

TEST_P(EvictionPolicyTest, HasTheNameItIsAskedForBy) { EXPECT_EQ(policy_->name(), GetParam()); }

TEST_P(EvictionPolicyTest, RanksEveryExpertFromTheStart) {
  for (uint32_t expert = 0; expert < 12; ++expert) EXPECT_TRUE(std::isfinite(Worth(expert)));
}

TEST_P(EvictionPolicyTest, RanksAllAtOnceAsOneByOne) {
  for (int step = 0; step < 20; ++step) {
    for (uint32_t layer = 0; layer < 3; ++layer) Use(layer, (step * 5 + layer) % 4);
  }
  const std::vector<uint32_t> candidates = {11, 0, 5, 7, 2};
  std::vector<float> worth(candidates.size(), NAN);
  policy_->Rank(candidates, absl::MakeSpan(worth));
  for (size_t i = 0; i < candidates.size(); ++i) EXPECT_EQ(worth[i], Worth(candidates[i]));
}

TEST_P(EvictionPolicyTest, AnExpertThatWasUsedIsWorthNoLessThanOneOfItsLayerThatNeverWas) {
  for (int step = 0; step < 10; ++step) {
    for (uint32_t layer = 0; layer < 3; ++layer) Use(layer, 1);
  }
  EXPECT_GE(Worth(1), Worth(2));
  EXPECT_GE(Worth(9), Worth(10));
}

TEST_P(EvictionPolicyTest, StaysFiniteOverManySteps) {
  for (int step = 0; step < 100'000; ++step) Use(0, step % 2);
  for (uint32_t expert = 0; expert < 12; ++expert) EXPECT_TRUE(std::isfinite(Worth(expert)));
}

TEST_P(EvictionPolicyTest, NeverBeatsTheOptimum) {
  RoutingTrace trace = {.model = "random",
                        .num_layers = 3,
                        .num_experts = 4,
                        .experts_per_token = 2,
                        .sequences = {}};
  uint32_t state = 1;
  for (int sequence = 0; sequence < 4; ++sequence) {
    RoutingTrace::Sequence& added = trace.sequences.emplace_back();
    for (int i = 0; i < 300 * 3; ++i) {
      state = state * 1664525 + 1013904223;
      const uint16_t first = state >> 24 & 3;
      added.expert_ids.push_back(first);
      added.expert_ids.push_back((first + 1 + (state >> 16 & 1)) % 4);
    }
  }
  for (const uint32_t num_streams : {1u, 3u}) {
    const TraceLookups lookups(trace, num_streams);
    std::vector<std::vector<uint32_t>> future;
    for (size_t i = 0; i < lookups.size(); ++i) {
      future.emplace_back(lookups.experts(i).begin(), lookups.experts(i).end());
    }
    for (const uint32_t num_slots : {3u, 6u, 11u, 12u}) {
      const auto policy = MakeEvictionPolicy(GetParam(), lookups.shape()).value();
      BeladyEviction optimum(future, lookups.shape());
      const ReplayResult result = Replay(lookups, *policy, num_slots);
      EXPECT_LE(result.hits, Replay(lookups, optimum, num_slots).hits) << num_slots;
      if (num_slots == 12) {
        EXPECT_EQ(result.misses(), 12u) << "each is missed once";
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, EvictionPolicyTest, testing::ValuesIn(EvictionPolicyNames()));

TEST(EvictionPolicies, AnUnknownOneIsNamed) {
  EXPECT_EQ(MakeEvictionPolicy("random", kShape).status().message(),
            "eviction: 'random' is not one of ewma, lfru, lru, lfu, fifo");
}

}  // namespace
}  // namespace pregate
