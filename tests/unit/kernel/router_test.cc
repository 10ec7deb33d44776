#include "core/kernel/router.h"

#include <algorithm>
#include <numeric>

#include "tests/unit/kernel/kernel_levels.h"

namespace pregate {
namespace {

struct Routed {
  std::vector<uint32_t> ids;
  std::vector<float> weights;
};

class RouterTest : public KernelLevelTest {
 protected:
  Routed Run(const CpuContext& context,
             const std::vector<float>& x,
             const std::vector<float>& gate,
             int64_t width,
             int64_t num_chosen,
             bool renormalize) {
    const auto num_tokens = static_cast<int64_t>(x.size()) / width;
    const auto num_experts = static_cast<int64_t>(gate.size()) / width;
    std::vector<float> logits(num_tokens * num_experts, kPoison);
    Routed routed{.ids = std::vector<uint32_t>(num_tokens * num_chosen, UINT32_MAX),
                  .weights = std::vector<float>(num_tokens * num_chosen, kPoison)};
    Route(context,
          {.x = x.data(),
           .gate = gate.data(),
           .logits = logits.data(),
           .expert_ids = routed.ids.data(),
           .weights = routed.weights.data(),
           .num_tokens = num_tokens,
           .width = width,
           .num_experts = num_experts,
           .num_chosen = num_chosen,
           .renormalize = renormalize});
    return routed;
  }
};
PREGATE_INSTANTIATE_LEVELS(RouterTest);

TEST_P(RouterTest, ChoosesTheLargestProbabilities) {
  constexpr int64_t kTokens = 9;
  for (const int64_t num_experts : {1, 8, 16, 37}) {
    for (const int64_t width : {16, 50}) {
      for (const bool renormalize : {false, true}) {
        const int64_t num_chosen = std::min<int64_t>(num_experts, 4);
        const std::vector<float> x = Random(kTokens * width);
        const std::vector<float> gate = Random(num_experts * width);
        const Routed routed = Run(cpu(), x, gate, width, num_chosen, renormalize);
        std::vector<double> expected;
        for (int64_t token = 0; token < kTokens; ++token) {
          std::vector<double> probabilities(num_experts);
          for (int64_t e = 0; e < num_experts; ++e) {
            double logit = 0;
            for (int64_t i = 0; i < width; ++i) {
              logit += double{x[token * width + i]} * gate[e * width + i];
            }
            probabilities[e] = std::exp(logit);
          }
          double sum = std::accumulate(probabilities.begin(), probabilities.end(), 0.0);
          std::vector<uint32_t> order(num_experts);
          std::iota(order.begin(), order.end(), 0);
          std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
            return probabilities[a] > probabilities[b];
          });
          if (renormalize) {
            sum = 0;
            for (int64_t k = 0; k < num_chosen; ++k) sum += probabilities[order[k]];
          }
          for (int64_t k = 0; k < num_chosen; ++k) {
            EXPECT_EQ(routed.ids[token * num_chosen + k], order[k]);
            expected.push_back(probabilities[order[k]] / sum);
          }
        }
        EXPECT_TRUE(AreNear(routed.weights, expected, 1e-5));
        const Routed other = Run(baseline(), x, gate, width, num_chosen, renormalize);
        EXPECT_EQ(other.ids, routed.ids);
        EXPECT_TRUE(SameBits(other.weights, routed.weights));
        EXPECT_TRUE(SameBits(Run(cut_cpu(), x, gate, width, num_chosen, renormalize).weights,
                             routed.weights));
      }
    }
  }
}

TEST_P(RouterTest, TakesTheLowerIdOfEquals) {
  // Experts 1, 3 and 4 have the same logit, 0 and 2 a lower one.
  const Routed routed = Run(cpu(), {1}, {0, 2, 0, 2, 2}, 1, 5, false);
  EXPECT_EQ(routed.ids, (std::vector<uint32_t>{1, 3, 4, 0, 2}));
  EXPECT_EQ(routed.weights[0], routed.weights[2]);
}

TEST_P(RouterTest, GivesNoWeightToWhatIsNoNumber) {
  const Routed routed = Run(cpu(), {1}, {kPoison, 1, kPoison}, 1, 3, false);
  EXPECT_EQ(routed.ids, (std::vector<uint32_t>{1, 0, 2}));
  for (const float weight : routed.weights) EXPECT_TRUE(std::isnan(weight));
}

TEST_P(RouterTest, SurvivesLargeLogits) {
  const Routed routed = Run(cpu(), {1}, {1000, 999, -1000}, 1, 3, false);
  EXPECT_NEAR(routed.weights[0], 1 / (1 + std::exp(-1.0)), 1e-6);
  EXPECT_EQ(routed.weights[2], 0);
}

}  // namespace
}  // namespace pregate
