#include "core/kernel/rows.h"

#include "tests/unit/kernel/kernel_levels.h"

namespace pregate {
namespace {

class RowsTest : public KernelLevelTest {};
PREGATE_INSTANTIATE_LEVELS(RowsTest);

TEST_P(RowsTest, GathersRowsOfEitherDtype) {
  constexpr int64_t kWidth = 37;
  const std::vector<float> table = Random(6 * kWidth);
  std::vector<uint16_t> rounded(table.size());
  for (size_t i = 0; i < table.size(); ++i) rounded[i] = RoundedToBfloat16(table[i]);
  const std::vector<uint32_t> rows = {5, 0, 5, 2};
  for (const Dtype dtype : {Dtype::kFloat32, Dtype::kBfloat16}) {
    std::vector<float> out(rows.size() * kWidth, kPoison);
    const bool is_float = dtype == Dtype::kFloat32;
    Gather(cut_cpu(),
           {.table = is_float ? static_cast<const void*>(table.data()) : rounded.data(),
            .dtype = dtype,
            .rows = rows.data(),
            .out = out.data(),
            .num_rows = static_cast<int64_t>(rows.size()),
            .width = kWidth});
    for (size_t row = 0; row < rows.size(); ++row) {
      for (int64_t i = 0; i < kWidth; ++i) {
        const size_t from = rows[row] * kWidth + i;
        EXPECT_EQ(out[row * kWidth + i], is_float ? table[from] : FromBfloat16Bits(rounded[from]));
      }
    }
  }
}

TEST_P(RowsTest, Adds) {
  const std::vector<float> x = Random(1000);
  std::vector<float> sum = Random(1000);
  const std::vector<float> before = sum;
  Add(cut_cpu(), x.data(), sum.data(), 1000);
  for (size_t i = 0; i < x.size(); ++i) EXPECT_EQ(sum[i], before[i] + x[i]);
}

TEST_P(RowsTest, RoundsToTheNearestBfloat16TiesToEven) {
  const std::pair<uint32_t, uint16_t> cases[] = {{0x3f800000, 0x3f80},
                                                 {0x3f807fff, 0x3f80},
                                                 {0x3f808000, 0x3f80},
                                                 {0x3f808001, 0x3f81},
                                                 {0x3f818000, 0x3f82},
                                                 {0xbf818000, 0xbf82},
                                                 {0x7f7fffff, 0x7f80},
                                                 {0x7f800000, 0x7f80},
                                                 {0x00000000, 0x0000},
                                                 {0x80000000, 0x8000},
                                                 {0x7f800001, 0x7fc0},
                                                 {0xffffffff, 0xffff}};
  for (const auto& [bits, expected] : cases) {
    float x;
    std::memcpy(&x, &bits, sizeof(x));
    // Among others, so that the vector loop takes some and the rest the others.
    const std::vector<float> many(35, x);
    std::vector<uint16_t> rounded(many.size(), 0x1234);
    ToBfloat16(cpu(), many.data(), rounded.data(), static_cast<int64_t>(many.size()));
    EXPECT_EQ(rounded, std::vector<uint16_t>(many.size(), expected)) << std::hex << bits;
  }
}

TEST_P(RowsTest, WidensEveryBfloat16) {
  std::vector<uint16_t> all(65536);
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<uint16_t>(i);
  std::vector<float> wide(all.size(), 7);
  FromBfloat16(cut_cpu(), all.data(), wide.data(), static_cast<int64_t>(all.size()));
  for (size_t i = 0; i < all.size(); ++i) {
    uint32_t bits;
    std::memcpy(&bits, &wide[i], sizeof(bits));
    ASSERT_EQ(bits, static_cast<uint32_t>(i) << 16);
  }
}

TEST_P(RowsTest, FindsWhatIsNotFinite) {
  const float bad[] = {kPoison, -kPoison, INFINITY, -INFINITY};
  for (const size_t count : {1, 16, 100, 40000}) {
    std::vector<float> x = Random(count, 1e30f);
    EXPECT_TRUE(AllFinite(cut_cpu(), x.data(), Dtype::kFloat32, static_cast<int64_t>(count)));
    for (const float value : bad) {
      for (const size_t at : {size_t{0}, count / 2, count - 1}) {
        const float before = x[at];
        x[at] = value;
        EXPECT_FALSE(AllFinite(cut_cpu(), x.data(), Dtype::kFloat32, static_cast<int64_t>(count)));
        x[at] = before;
      }
    }
  }
  std::vector<uint16_t> rounded(99, 0x7f7f);
  EXPECT_TRUE(AllFinite(cpu(), rounded.data(), Dtype::kBfloat16, 99));
  for (const uint16_t value : {0x7f80, 0xff80, 0x7fc0}) {
    rounded[98] = value;
    EXPECT_FALSE(AllFinite(cpu(), rounded.data(), Dtype::kBfloat16, 99));
  }
}

}  // namespace
}  // namespace pregate
