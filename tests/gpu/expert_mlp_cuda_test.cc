// Experts on a device against decoded weights and float64 sums, and their bits against themselves.
#include "core/kernel/expert_mlp_cuda.h"

#include <cmath>
#include <cstring>
#include <iostream>
#include <numeric>
#include <random>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/gpu/device_array_cuda.h"

namespace pregate {
namespace {

uint16_t ToBfloat16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

float FromBfloat16(uint16_t value) {
  const uint32_t bits = uint32_t{value} << 16;
  float result;
  std::memcpy(&result, &bits, sizeof(result));
  return result;
}

// The bits, so that NaN equals itself and -0 is not 0.
std::vector<uint32_t> Bits(const float* values, size_t count) {
  std::vector<uint32_t> bits(count);
  std::memcpy(bits.data(), values, count * sizeof(float));
  return bits;
}

struct Form {
  uint32_t hidden;
  uint32_t width;
  bool is_gated;
};

constexpr uint32_t kExperts = 3;
constexpr uint32_t kChosen = 2;

// Experts of random weights and the steps that tests run on them.
class ExpertMlpCudaTest : public testing::TestWithParam<std::tuple<Codec, Form>> {
 protected:
  void SetUp() override {
    if (!HasCudaDevice()) GTEST_SKIP() << "no CUDA device";
    seed_ = std::random_device()();
    std::cout << "seed " << seed_ << std::endl;
    random_.seed(seed_);
    const auto& [codec, form] = GetParam();
    layout_ = LayOutRecord(codec,
                           {.hidden_size = form.hidden,
                            .expert_width = form.width,
                            .is_gated = form.is_gated,
                            .dtype = Dtype::kBfloat16})
                  .value();
    // Weights that keep the size of what they multiply, as a trained model's do.
    for (uint32_t e = 0; e < kExperts; ++e) {
      std::vector<std::byte> record(layout_.bytes, std::byte{0xff});
      for (const EncodedMatrix* matrix : {&layout_.up, &layout_.gate, &layout_.down}) {
        if (matrix->out == 0) continue;
        std::normal_distribution<float> normal(0.01f,
                                               1 / std::sqrt(static_cast<float>(matrix->in)));
        std::vector<float> weights(size_t{matrix->out} * matrix->in);
        for (float& weight : weights) weight = normal(random_);
        std::fill_n(weights.begin(), matrix->in, 0.0f);
        EncodeMatrix(layout_, *matrix, weights.data(), absl::MakeSpan(record));
      }
      device_records_.emplace_back(record);
      records_.push_back(std::move(record));
    }
  }

  // Rows of bfloat16 for `num_tokens`.
  std::vector<uint16_t> RandomRows(uint32_t num_tokens) {
    std::normal_distribution<float> normal;
    std::vector<uint16_t> x(size_t{num_tokens} * layout_.up.in);
    for (uint16_t& value : x) value = ToBfloat16(normal(random_));
    return x;
  }

  // Experts and their places, launch by launch.
  struct Share {
    uint32_t expert;
    std::vector<uint32_t> places;
  };
  using Launches = std::vector<std::vector<Share>>;

  // out [num_tokens · kChosen, hidden], NaN where nothing was written. With `from_host` the device
  // has no spans, and no places where they are few.
  std::vector<float> Run(const std::vector<uint16_t>& x,
                         const Launches& launches,
                         Activation activation,
                         uint32_t spare_rows = 0,
                         bool from_host = false) {
    const size_t num_places = x.size() / layout_.up.in * kChosen;
    const DeviceArray<uint16_t> device_x(x);
    const DeviceArray<uint16_t> inner(num_places * layout_.up.out);
    const DeviceArray<float> out(num_places * layout_.down.out);
    for (const std::vector<Share>& shares : launches) {
      std::vector<ExpertSpan> spans;
      std::vector<uint32_t> places;
      uint32_t max_rows = 0;
      for (const Share& share : shares) {
        const auto count = static_cast<uint32_t>(share.places.size());
        spans.push_back({.record = device_records_[share.expert].data(),
                         .first = static_cast<uint32_t>(places.size()),
                         .count = count});
        places.insert(places.end(), share.places.begin(), share.places.end());
        max_rows = std::max(max_rows, count);
      }
      const DeviceArray<ExpertSpan> device_spans(spans);
      const DeviceArray<uint32_t> device_places(places);
      const absl::Status status = ExpertMlp(
          {.layout = &layout_,
           .activation = activation,
           .experts = from_host ? nullptr : device_spans.data(),
           .host_experts = from_host ? spans.data() : nullptr,
           .host_places = from_host ? places.data() : nullptr,
           .places = from_host && places.size() <= kFewPlaces ? nullptr : device_places.data(),
           .x = device_x.data(),
           .inner = inner.data(),
           .out = out.data(),
           .num_experts = static_cast<uint32_t>(spans.size()),
           .num_chosen = kChosen,
           .max_rows = max_rows + spare_rows},
          nullptr);
      EXPECT_TRUE(status.ok()) << status;
      CheckCuda(cudaDeviceSynchronize());
    }
    return out.Read();
  }

  std::vector<float> Decoded(uint32_t expert, const EncodedMatrix& matrix) const {
    std::vector<float> weights(size_t{matrix.out} * matrix.in);
    DecodeMatrix(layout_, matrix, records_[expert], weights.data());
    return weights;
  }

  static std::vector<double> Product(const std::vector<float>& weights,
                                     const std::vector<double>& x) {
    std::vector<double> y(weights.size() / x.size());
    for (size_t o = 0; o < y.size(); ++o) {
      y[o] = std::inner_product(x.begin(), x.end(), weights.begin() + o * x.size(), 0.0);
    }
    return y;
  }

  // What an expert makes of one row, with nothing rounded.
  std::vector<double> Reference(uint32_t expert, const uint16_t* row, Activation activation) const {
    const std::vector<double> x = [&] {
      std::vector<double> values(layout_.up.in);
      for (size_t i = 0; i < values.size(); ++i) values[i] = FromBfloat16(row[i]);
      return values;
    }();
    const std::vector<double> up = Product(Decoded(expert, layout_.up), x);
    std::vector<double> inner = up;
    if (layout_.gate.out != 0) inner = Product(Decoded(expert, layout_.gate), x);
    for (size_t i = 0; i < inner.size(); ++i) {
      const double value = inner[i];
      inner[i] =
          activation == Activation::kRelu ? std::max(value, 0.0) : value / (1 + std::exp(-value));
      if (layout_.gate.out != 0) inner[i] *= up[i];
    }
    return Product(Decoded(expert, layout_.down), inner);
  }

  void ExpectCloseToReference(const std::vector<float>& out,
                              const std::vector<uint16_t>& x,
                              const std::vector<Share>& shares,
                              Activation activation) {
    double error = 0;
    double magnitude = 0;
    const size_t hidden = layout_.down.out;
    for (const Share& share : shares) {
      for (const uint32_t place : share.places) {
        const std::vector<double> expected =
            Reference(share.expert, &x[place / kChosen * layout_.up.in], activation);
        for (size_t i = 0; i < hidden; ++i) {
          const double difference = out[place * hidden + i] - expected[i];
          error += difference * difference;
          magnitude += expected[i] * expected[i];
        }
      }
    }
    const double relative = std::sqrt(error / magnitude);
    std::cout << "relative error " << relative << std::endl;
    // So that NaN fails too.
    EXPECT_TRUE(relative <= 1e-2) << relative;
  }

  uint32_t seed_ = 0;
  std::mt19937 random_;
  RecordLayout layout_;
  std::vector<std::vector<std::byte>> records_;
  std::vector<DeviceArray<std::byte>> device_records_;
};

TEST_P(ExpertMlpCudaTest, IsTheProductOfTheDecodedWeights) {
  const std::vector<uint16_t> x = RandomRows(12);
  // One row, nine and ten: less than a tile of rows, and more. Places 20 … 23 are nobody's.
  std::vector<uint32_t> nine(9);
  std::vector<uint32_t> ten(10);
  for (uint32_t i = 0; i < 9; ++i) nine[i] = 2 * i + 1;
  for (uint32_t i = 0; i < 10; ++i) ten[i] = 18 - 2 * i;
  const std::vector<Share> shares = {{2, {19}}, {0, nine}, {1, ten}};
  for (const Activation activation : {Activation::kRelu, Activation::kSilu}) {
    const std::vector<float> out = Run(x, {shares}, activation);
    ExpectCloseToReference(out, x, shares, activation);
    for (size_t i = 20 * layout_.down.out; i < out.size(); ++i) ASSERT_TRUE(std::isnan(out[i]));
  }
}

TEST_P(ExpertMlpCudaTest, BitsDependOnNothingButTheRowAndTheExpert) {
  constexpr uint32_t kTokens = 70;
  const std::vector<uint16_t> x = RandomRows(kTokens);
  // Every token's first choice is expert 0, which has a prompt of rows; the second is 1 or 2.
  std::vector<Share> shares = {{0, {}}, {1, {}}, {2, {}}};
  for (uint32_t token = 0; token < kTokens; ++token) {
    shares[0].places.push_back(token * kChosen);
    shares[token % 8 == 0 ? 1 : 2].places.push_back(token * kChosen + 1);
  }
  const std::vector<float> together = Run(x, {shares}, Activation::kSilu);
  const std::vector<uint32_t> bits = Bits(together.data(), together.size());

  EXPECT_EQ(Bits(Run(x, {shares}, Activation::kSilu, 40).data(), bits.size()), bits) << "max_rows";
  EXPECT_EQ(Bits(Run(x, {shares}, Activation::kSilu, 0, true).data(), bits.size()), bits)
      << "spans that travel with the launch";
  const Launches apart = {{shares[2]}, {shares[0]}, {shares[1]}};
  EXPECT_EQ(Bits(Run(x, apart, Activation::kSilu).data(), bits.size()), bits) << "apart";
  std::vector<Share> shuffled = shares;
  for (Share& share : shuffled) std::shuffle(share.places.begin(), share.places.end(), random_);
  EXPECT_EQ(Bits(Run(x, {shuffled}, Activation::kSilu).data(), bits.size()), bits) << "shuffled";

  const size_t hidden = layout_.down.out;
  for (const size_t rows : {1, 2, 7, 8, 9, 16, 17, 33}) {
    const Share some = {0, {shares[0].places.begin() + 5, shares[0].places.begin() + 5 + rows}};
    const bool from_host = rows % 2 == 0;
    const std::vector<float> out = Run(x, {{some}}, Activation::kSilu, 0, from_host);
    for (const uint32_t place : some.places) {
      ASSERT_EQ(Bits(&out[place * hidden], hidden), Bits(&together[place * hidden], hidden))
          << rows << " rows, place " << place;
    }
  }
}

std::string NameOf(const testing::TestParamInfo<std::tuple<Codec, Form>>& info) {
  const auto& [codec, form] = info.param;
  return absl::StrCat(
      CodecName(codec), "_", form.hidden, "_", form.width, form.is_gated ? "_gated" : "");
}

INSTANTIATE_TEST_SUITE_P(
    Codecs,
    ExpertMlpCudaTest,
    testing::Combine(testing::Values(Codec::kNone, Codec::kInt8, Codec::kInt4, Codec::kSparse),
                     // The least, one of whole groups, and one whose last chunk and group are
                     // parts.
                     testing::Values(Form{32, 64, false},
                                     Form{512, 768, true},
                                     Form{512, 1024, false},
                                     Form{736, 416, true})),
    NameOf);

TEST(ExpertMlpCudaErrorsTest, NameTheLimit) {
  RecordLayout layout =
      LayOutRecord(Codec::kInt8, {.hidden_size = 48, .expert_width = 64, .is_gated = false})
          .value();
  EXPECT_EQ(
      ExpertMlp({.layout = &layout, .num_experts = 1, .num_chosen = 1, .max_rows = 1}, nullptr),
      absl::InvalidArgumentError("an expert of 48 to 64 numbers on a GPU: 32 must divide both"));
  layout =
      LayOutRecord(Codec::kNone, {.hidden_size = 64, .expert_width = 64, .dtype = Dtype::kFloat32})
          .value();
  EXPECT_EQ(
      ExpertMlp({.layout = &layout, .num_experts = 1, .num_chosen = 1, .max_rows = 1}, nullptr),
      absl::InvalidArgumentError("experts on a GPU are bfloat16 or encoded, not float32"));
}

TEST(CombineCudaTest, AddsChoicesInOrder) {
  if (!HasCudaDevice()) GTEST_SKIP() << "no CUDA device";
  constexpr int64_t kTokens = 5;
  constexpr int64_t kCombined = 3;
  constexpr int64_t kWidth = 516;
  const uint32_t seed = std::random_device()();
  std::cout << "seed " << seed << std::endl;
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> rows(kTokens * kCombined * kWidth);
  std::vector<float> weights(kTokens * kCombined);
  std::vector<float> sum(kTokens * kWidth);
  for (std::vector<float>* values : {&rows, &weights, &sum}) {
    for (float& value : *values) value = normal(random);
  }
  const DeviceArray<float> device_rows(rows);
  const DeviceArray<float> device_weights(weights);
  const DeviceArray<float> device_sum(sum);
  const absl::Status status = Combine({.expert_out = device_rows.data(),
                                       .weights = device_weights.data(),
                                       .sum = device_sum.data(),
                                       .num_tokens = kTokens,
                                       .num_chosen = kCombined,
                                       .width = kWidth},
                                      nullptr);
  ASSERT_TRUE(status.ok()) << status;
  const std::vector<float> combined = device_sum.Read();
  for (int64_t token = 0; token < kTokens; ++token) {
    for (int64_t i = 0; i < kWidth; ++i) {
      float expected = 0;
      for (int64_t k = 0; k < kCombined; ++k) {
        const int64_t place = token * kCombined + k;
        expected = std::fma(weights[place], rows[place * kWidth + i], expected);
      }
      ASSERT_EQ(combined[token * kWidth + i], sum[token * kWidth + i] + expected);
    }
  }
}

}  // namespace
}  // namespace pregate
