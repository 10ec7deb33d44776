#include "core/kernel/norm_rope.h"

#include "tests/unit/kernel/kernel_levels.h"

namespace pregate {
namespace {

class RmsNormTest : public KernelLevelTest {};
class RopeTest : public KernelLevelTest {};
PREGATE_INSTANTIATE_LEVELS(RmsNormTest);
PREGATE_INSTANTIATE_LEVELS(RopeTest);

TEST_P(RmsNormTest, DividesByTheRootMeanSquare) {
  constexpr float kEpsilon = 1e-5f;
  for (const int64_t width : {1, 7, 16, 33, 160, 512}) {
    constexpr int64_t kRows = 5;
    const std::vector<float> x = Random(kRows * width, 3);
    const std::vector<float> weight = Random(width);
    std::vector<double> expected(x.size());
    for (int64_t row = 0; row < kRows; ++row) {
      double squares = 0;
      for (int64_t i = 0; i < width; ++i) squares += std::pow(double{x[row * width + i]}, 2);
      const double root = std::sqrt(squares / static_cast<double>(width) + kEpsilon);
      for (int64_t i = 0; i < width; ++i) {
        expected[row * width + i] = x[row * width + i] / root * weight[i];
      }
    }
    std::vector<float> out(x.size(), kPoison);
    RmsNormArgs args = {.x = x.data(),
                        .weight = weight.data(),
                        .out = out.data(),
                        .num_rows = kRows,
                        .width = width,
                        .epsilon = kEpsilon};
    RmsNorm(cpu(), args);
    EXPECT_TRUE(AreNear(out, expected, 1e-6)) << width;

    std::vector<float> again(x.size(), kPoison);
    args.out = again.data();
    RmsNorm(baseline(), args);
    EXPECT_TRUE(SameBits(out, again)) << "another level, width " << width;

    std::vector<float> in_place = x;
    args.x = in_place.data();
    args.out = in_place.data();
    RmsNorm(cut_cpu(), args);
    EXPECT_TRUE(SameBits(out, in_place)) << "in place, width " << width;
  }
}

TEST_P(RopeTest, RotatesPairsOfHalves) {
  constexpr int64_t kTokens = 4;
  constexpr int64_t kHeads = 3;
  constexpr double kTheta = 10000;
  for (const int64_t head_dim : {2, 8, 30, 64}) {
    const int64_t half = head_dim / 2;
    constexpr int64_t kMaxPositions = 100;
    std::vector<float> cosines(kMaxPositions * half, kPoison);
    std::vector<float> sines(kMaxPositions * half, kPoison);
    FillRopeTable(kMaxPositions, head_dim, kTheta, cosines.data(), sines.data());
    const std::vector<uint32_t> positions = {0, 99, 7, 7};
    const std::vector<float> x = Random(kTokens * kHeads * head_dim);

    std::vector<double> expected(x.size());
    for (int64_t row = 0; row < kTokens * kHeads; ++row) {
      for (int64_t i = 0; i < half; ++i) {
        const double angle =
            positions[row / kHeads] *
            std::pow(kTheta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
        const double a = x[row * head_dim + i];
        const double b = x[row * head_dim + half + i];
        expected[row * head_dim + i] = a * std::cos(angle) - b * std::sin(angle);
        expected[row * head_dim + half + i] = b * std::cos(angle) + a * std::sin(angle);
      }
    }
    const auto rotate = [&](const CpuContext& context) {
      std::vector<float> rotated = x;
      Rope(context,
           {.x = rotated.data(),
            .positions = positions.data(),
            .cosines = cosines.data(),
            .sines = sines.data(),
            .num_tokens = kTokens,
            .num_heads = kHeads,
            .head_dim = head_dim});
      return rotated;
    };
    const std::vector<float> rotated = rotate(cpu());
    EXPECT_TRUE(AreNear(rotated, expected, 1e-5)) << head_dim;
    EXPECT_TRUE(SameBits(rotated, rotate(baseline()))) << head_dim;
    EXPECT_TRUE(SameBits(rotated, rotate(cut_cpu()))) << head_dim;
  }
}

}  // namespace
}  // namespace pregate
