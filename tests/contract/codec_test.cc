// What every codec promises, at every instruction level.
#include "core/kernel/codec.h"

#include <cmath>
#include <limits>
#include <random>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "core/kernel/cpu_isa.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace pregate {
namespace {

struct Size {
  uint32_t hidden;
  uint32_t width;
};

class CodecTest : public testing::TestWithParam<std::tuple<Codec, Size>> {
 protected:
  CodecTest()
      : codec_(std::get<0>(GetParam())),
        shape_{.hidden_size = std::get<1>(GetParam()).hidden,
               .expert_width = std::get<1>(GetParam()).width,
               .is_gated = true,
               .dtype = Dtype::kFloat32},
        layout_(LayOutRecord(codec_, shape_).value()),
        record_(layout_.bytes, std::byte{0xee}) {
    std::mt19937 random(7);
    std::normal_distribution<float> normal(0, 0.05f);
    for (const EncodedMatrix* matrix : {&layout_.up, &layout_.gate, &layout_.down}) {
      std::vector<float>& weights = weights_.emplace_back(size_t{matrix->out} * matrix->in);
      for (float& weight : weights) weight = normal(random);
      // A row of nothing, and one number that stands out.
      std::fill_n(weights.begin(), matrix->in, 0.0f);
      weights.back() = 1;
      EncodeMatrix(layout_, *matrix, weights.data(), absl::MakeSpan(record_));
    }
  }

  const EncodedMatrix& matrix(size_t index) const {
    return index == 0 ? layout_.up : index == 1 ? layout_.gate : layout_.down;
  }
  std::vector<float> Decoded(size_t index) const {
    std::vector<float> weights(weights_[index].size());
    DecodeMatrix(layout_, matrix(index), record_, weights.data());
    return weights;
  }
  static CpuContext Serial(CpuIsa isa) {
    return {.kernels = &CpuKernelsFor(isa), .parallel_for = RunSerially};
  }
  // The loop in pieces as small as may be, last first.
  static CpuContext Shuffled(CpuIsa isa) {
    return {.kernels = &CpuKernelsFor(isa),
            .parallel_for = [](int64_t count,
                               int64_t,
                               absl::FunctionRef<void(int64_t begin, int64_t end)> body) {
              for (int64_t i = count; i > 0; --i) body(i - 1, i);
            }};
  }
  std::vector<float> RandomRows(size_t num_rows, uint32_t in) const {
    std::mt19937 random(11);
    std::normal_distribution<float> normal;
    std::vector<float> x(num_rows * in);
    for (float& value : x) value = normal(random);
    return x;
  }
  std::vector<float> Product(const CpuContext& cpu,
                             size_t index,
                             const float* x,
                             int64_t num_rows) const {
    // Poisoned: what is not written shows.
    std::vector<float> y(num_rows * matrix(index).out, std::numeric_limits<float>::quiet_NaN());
    EncodedProduct(cpu,
                   {.layout = &layout_,
                    .matrix = &matrix(index),
                    .record = record_.data(),
                    .x = x,
                    .y = y.data(),
                    .num_rows = num_rows});
    return y;
  }

  const Codec codec_;
  const ExpertShape shape_;
  const RecordLayout layout_;
  std::vector<std::byte> record_;
  std::vector<std::vector<float>> weights_;  // up, gate, down
};

class EncodedProductTest : public CodecTest {};
class SparseCodecTest : public CodecTest {};
class ScaledCodecTest : public CodecTest {};

TEST_P(CodecTest, LosesNoMoreThanItPromises) {
  for (size_t index = 0; index < weights_.size(); ++index) {
    const std::vector<float> decoded = Decoded(index);
    const uint32_t in = matrix(index).in;
    for (size_t row = 0; row < matrix(index).out; ++row) {
      const float* const was = &weights_[index][row * in];
      const float* const is = &decoded[row * in];
      float largest = 0;
      for (uint32_t i = 0; i < in; ++i) largest = std::max(largest, std::fabs(was[i]));
      for (uint32_t i = 0; i < in; ++i) {
        const float error = std::fabs(was[i] - is[i]);
        if (codec_ == Codec::kNone) {
          EXPECT_EQ(was[i], is[i]);
        } else if (codec_ == Codec::kInt8) {
          EXPECT_LE(error, largest / 127 * 0.501f);
        } else if (codec_ == Codec::kInt4) {
          float least = 0, most = 0;
          for (uint32_t j = i / 128 * 128; j < std::min(in, i / 128 * 128 + 128); ++j) {
            least = std::min(least, was[j]);
            most = std::max(most, was[j]);
          }
          // Half a step, and what rounding the scale and the zero point to bfloat16 adds.
          EXPECT_LE(error, (most - least) / 15 * 0.58f) << index << " " << row << " " << i;
        } else if (is[i] != 0) {
          EXPECT_LE(error, largest / 127 * 0.501f);
        }
      }
    }
  }
}

TEST_P(SparseCodecTest, KeepsTheTwoLargestOfFour) {
  const std::vector<float> decoded = Decoded(0);
  const float scale_step = 1.0f / 127 * 0.501f;
  for (size_t group = 0; group < decoded.size() / 4; ++group) {
    std::vector<float> magnitudes;
    int kept = 0;
    float least_kept = std::numeric_limits<float>::max();
    float most_dropped = 0;
    for (size_t i = group * 4; i < group * 4 + 4; ++i) {
      const float magnitude = std::fabs(weights_[0][i]);
      if (decoded[i] != 0) {
        ++kept;
        least_kept = std::min(least_kept, magnitude);
      } else {
        most_dropped = std::max(most_dropped, magnitude);
      }
    }
    EXPECT_LE(kept, 2);
    if (kept == 2) {
      EXPECT_GE(least_kept, most_dropped - scale_step);
    }
  }
}

TEST_P(EncodedProductTest, ProductsAreThoseOfTheDecodedMatrix) {
  for (size_t index = 0; index < weights_.size(); ++index) {
    const std::vector<float> decoded = Decoded(index);
    const uint32_t in = matrix(index).in;
    const uint32_t out = matrix(index).out;
    constexpr size_t kRows = 5;
    const std::vector<float> x = RandomRows(kRows, in);
    for (const CpuIsa isa : AvailableCpuIsas()) {
      const std::vector<float> y = Product(Serial(isa), index, x.data(), kRows);
      for (size_t row = 0; row < kRows; ++row) {
        for (uint32_t o = 0; o < out; ++o) {
          double sum = 0;
          double magnitude = 0;
          for (uint32_t i = 0; i < in; ++i) {
            const double term = double{x[row * in + i]} * decoded[o * in + i];
            sum += term;
            magnitude += std::fabs(term);
          }
          ASSERT_NEAR(y[row * out + o], sum, magnitude * 1e-6 + 1e-12)
              << CpuIsaName(isa) << ", row " << row << ", output " << o;
        }
      }
    }
  }
}

TEST_P(EncodedProductTest, BitsDependOnNothingButTheRow) {
  const uint32_t in = matrix(0).in;
  const uint32_t out = matrix(0).out;
  constexpr size_t kRows = 33;
  const std::vector<float> x = RandomRows(kRows, in);
  const std::vector<float> all = Product(Serial(CpuIsa::kBaseline), 0, x.data(), kRows);
  for (const CpuIsa isa : AvailableCpuIsas()) {
    EXPECT_EQ(Product(Serial(isa), 0, x.data(), kRows), all) << CpuIsaName(isa);
    EXPECT_EQ(Product(Shuffled(isa), 0, x.data(), kRows), all) << CpuIsaName(isa);
    for (const size_t row : {size_t{0}, size_t{17}, kRows - 1}) {
      const std::vector<float> alone = Product(Serial(isa), 0, &x[row * in], 1);
      EXPECT_TRUE(std::equal(alone.begin(), alone.end(), all.begin() + row * out))
          << CpuIsaName(isa) << ", row " << row;
    }
  }
}

TEST_P(ScaledCodecTest, WhatWasDecodedEncodesToItself) {
  std::vector<std::byte> again(layout_.bytes, std::byte{0xee});
  for (size_t index = 0; index < weights_.size(); ++index) {
    EncodeMatrix(layout_, matrix(index), Decoded(index).data(), absl::MakeSpan(again));
  }
  std::vector<float> twice(weights_[2].size());
  DecodeMatrix(layout_, layout_.down, again, twice.data());
  const std::vector<float> once = Decoded(2);
  for (size_t i = 0; i < once.size(); ++i) ASSERT_NEAR(twice[i], once[i], 1e-6) << i;
}

const auto kSizes = testing::Values(Size{64, 32}, Size{20, 12}, Size{160, 256}, Size{4100, 132});

std::string NameOf(const testing::TestParamInfo<std::tuple<Codec, Size>>& test) {
  const Size size = std::get<1>(test.param);
  return absl::StrCat(CodecName(std::get<0>(test.param)), "_", size.hidden, "_", size.width);
}

INSTANTIATE_TEST_SUITE_P(
    All,
    CodecTest,
    testing::Combine(testing::Values(Codec::kNone, Codec::kInt8, Codec::kInt4, Codec::kSparse),
                     kSizes),
    NameOf);
INSTANTIATE_TEST_SUITE_P(
    Encoded,
    EncodedProductTest,
    testing::Combine(testing::Values(Codec::kInt8, Codec::kInt4, Codec::kSparse), kSizes),
    NameOf);
INSTANTIATE_TEST_SUITE_P(Sparse,
                         SparseCodecTest,
                         testing::Combine(testing::Values(Codec::kSparse), kSizes),
                         NameOf);
// Not kInt4, whose rounded scale may move by a bit.
INSTANTIATE_TEST_SUITE_P(
    Scaled,
    ScaledCodecTest,
    testing::Combine(testing::Values(Codec::kNone, Codec::kInt8, Codec::kSparse), kSizes),
    NameOf);

TEST(Codec, HasNamesAndThePrototypesToo) {
  for (const Codec codec : {Codec::kNone, Codec::kInt8, Codec::kInt4, Codec::kSparse}) {
    EXPECT_EQ(ParseCodec(CodecName(codec)).value(), codec);
  }
  EXPECT_EQ(ParseCodec("int8_dynamic").value(), Codec::kInt8);
  EXPECT_EQ(ParseCodec("int4_grouped").value(), Codec::kInt4);
  EXPECT_EQ(ParseCodec("structured_sparse").value(), Codec::kSparse);
  EXPECT_EQ(ParseCodec("fp8").status().message(),
            "codec 'fp8' is not one of none, int8, int4, sparse");
}

TEST(Codec, TakesTheBytesThatItSays) {
  const ExpertShape shape = {
      .hidden_size = 512, .expert_width = 2048, .is_gated = false, .dtype = Dtype::kBfloat16};
  const double weights = 2.0 * 512 * 2048;
  EXPECT_NEAR(LayOutRecord(Codec::kNone, shape)->bytes / weights, 2, 0.001);
  EXPECT_NEAR(LayOutRecord(Codec::kInt8, shape)->bytes / weights, 1, 0.01);
  EXPECT_NEAR(LayOutRecord(Codec::kInt4, shape)->bytes / weights, 0.53, 0.005);
  EXPECT_NEAR(LayOutRecord(Codec::kSparse, shape)->bytes / weights, 0.63, 0.005);
}

TEST(Codec, RefusesWhatItCannotHold) {
  const ExpertShape odd = {.hidden_size = 6, .expert_width = 8};
  EXPECT_EQ(LayOutRecord(Codec::kSparse, odd).status().message(),
            "codec sparse needs input sizes that 4 divides; this model has one of 6");
  EXPECT_FALSE(LayOutRecord(Codec::kInt8, {.hidden_size = 0, .expert_width = 8}).ok());
}

}  // namespace
}  // namespace pregate
