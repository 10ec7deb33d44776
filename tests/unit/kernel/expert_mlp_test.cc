#include "core/kernel/expert_mlp.h"

#include "tests/unit/kernel/kernel_levels.h"

namespace pregate {
namespace {

class ExpertMlpTest : public KernelLevelTest {};
PREGATE_INSTANTIATE_LEVELS(ExpertMlpTest);

TEST_P(ExpertMlpTest, ActivatesAndGates) {
  for (const size_t count : {1, 16, 67, 5000}) {
    const std::vector<float> x = Random(count, 4);
    const std::vector<float> up = Random(count);
    for (const Activation activation : {Activation::kRelu, Activation::kSilu}) {
      for (const bool gated : {false, true}) {
        std::vector<double> expected(count);
        for (size_t i = 0; i < count; ++i) {
          const double y = activation == Activation::kRelu ? std::max(0.0, double{x[i]})
                                                           : x[i] / (1 + std::exp(-double{x[i]}));
          expected[i] = gated ? y * up[i] : y;
        }
        const auto run = [&](const CpuContext& context) {
          std::vector<float> out(count, kPoison);
          Activate(context,
                   {.x = x.data(),
                    .up = gated ? up.data() : nullptr,
                    .out = out.data(),
                    .count = static_cast<int64_t>(count),
                    .activation = activation});
          return out;
        };
        const std::vector<float> out = run(cpu());
        EXPECT_TRUE(AreNear(out, expected, 1e-6)) << count;
        EXPECT_TRUE(SameBits(out, run(baseline()))) << count;
        EXPECT_TRUE(SameBits(out, run(cut_cpu()))) << count;
      }
    }
  }
}

TEST_P(ExpertMlpTest, HandlesTheEndsOfTheRange) {
  const std::vector<float> x = {-200, 200, -88, 88, 0, kPoison};
  for (const Activation activation : {Activation::kRelu, Activation::kSilu}) {
    std::vector<float> out(x.size(), 7);
    Activate(cpu(),
             {.x = x.data(),
              .up = nullptr,
              .out = out.data(),
              .count = static_cast<int64_t>(x.size()),
              .activation = activation});
    EXPECT_NEAR(out[0], 0, 1e-30);
    EXPECT_EQ(out[1], 200);
    EXPECT_NEAR(out[2], 0, 1e-30);
    EXPECT_EQ(out[3], 88);
    EXPECT_EQ(out[4], 0);
    EXPECT_TRUE(std::isnan(out[5]));
  }
}

TEST_P(ExpertMlpTest, CombinesInTheRoutersOrder) {
  constexpr int64_t kTokens = 3;
  constexpr int64_t kChosen = 2;
  for (const int64_t width : {5, 192}) {
    const std::vector<float> expert_out = Random(kTokens * kChosen * width);
    const std::vector<uint32_t> rows = {4, 0, 2, 5, 1, 3};
    const std::vector<float> weights = Random(kTokens * kChosen);
    const std::vector<float> residual = Random(kTokens * width);
    std::vector<double> expected(residual.begin(), residual.end());
    for (int64_t token = 0; token < kTokens; ++token) {
      for (int64_t k = 0; k < kChosen; ++k) {
        for (int64_t i = 0; i < width; ++i) {
          expected[token * width + i] += double{weights[token * kChosen + k]} *
                                         expert_out[rows[token * kChosen + k] * width + i];
        }
      }
    }
    const auto run = [&](const CpuContext& context) {
      std::vector<float> sum = residual;
      Combine(context,
              {.expert_out = expert_out.data(),
               .rows = rows.data(),
               .weights = weights.data(),
               .sum = sum.data(),
               .num_tokens = kTokens,
               .num_chosen = kChosen,
               .width = width});
      return sum;
    };
    const std::vector<float> sum = run(cpu());
    EXPECT_TRUE(AreNear(sum, expected, 1e-6));
    EXPECT_TRUE(SameBits(sum, run(baseline())));
    EXPECT_TRUE(SameBits(sum, run(cut_cpu())));
  }
}

}  // namespace
}  // namespace pregate
