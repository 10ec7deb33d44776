#include "core/model/product.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "core/kernel/cpu_isa.h"

namespace pregate {
namespace {

class ProductTest : public testing::TestWithParam<Dtype> {
 protected:
  static constexpr int64_t kIn = 48;
  static constexpr int64_t kOut = 40;
  static constexpr int64_t kMaxRows = 90;

  ProductTest() {
    at::set_num_threads(1);
    std::mt19937 engine(1);
    std::normal_distribution<float> normal;
    // Rounded, so that the expected values hold for bfloat16 too.
    const auto next = [&] { return static_cast<float>(static_cast<at::BFloat16>(normal(engine))); };
    x_.resize(kMaxRows * kIn);
    for (float& number : x_) number = next();
    weights_ = EmptyTensor({kOut, kIn}, at::kFloat);
    for (int64_t i = 0; i < kOut * kIn; ++i) weights_.mutable_data_ptr<float>()[i] = next();
    matrix_ = weights_.to(ScalarTypeOf(GetParam())).t();
  }

  std::vector<float> Run(Product& product, int64_t first, int64_t count) {
    std::vector<float> y(count * kOut, std::numeric_limits<float>::quiet_NaN());
    product.Run(x_.data() + first * kIn, count, matrix_, y.data());
    return y;
  }

  Product MakeProduct(std::vector<int64_t> row_counts) {
    return Product({.kernels = &CpuKernelsFor(CpuIsa::kBaseline), .parallel_for = RunSerially},
                   GetParam(),
                   std::move(row_counts),
                   kIn,
                   kOut);
  }

  std::vector<float> x_;
  at::Tensor weights_;  // float32 [kOut, kIn]
  Matrix matrix_;
};
INSTANTIATE_TEST_SUITE_P(Dtypes,
                         ProductTest,
                         testing::Values(Dtype::kFloat32, Dtype::kBfloat16),
                         [](const auto& info) { return std::string(DtypeName(info.param)); });

TEST_P(ProductTest, IsTheProduct) {
  const double tolerance = GetParam() == Dtype::kBfloat16 ? 5e-3 : 1e-6;
  for (const std::vector<int64_t>& row_counts :
       {std::vector<int64_t>{1}, {8}, {4, 5, 6, 7, 8, 32}, {1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 64}}) {
    Product product = MakeProduct(row_counts);
    for (const int64_t count : {0, 1, 3, 8, 9, 45, 90}) {
      const std::vector<float> y = Run(product, 0, count);
      for (int64_t row = 0; row < count; ++row) {
        double difference = 0;
        double norm = 0;
        for (int64_t o = 0; o < kOut; ++o) {
          double sum = 0;
          for (int64_t i = 0; i < kIn; ++i) {
            sum += double{x_[row * kIn + i]} * weights_.const_data_ptr<float>()[o * kIn + i];
          }
          difference += std::pow(y[row * kOut + o] - sum, 2);
          norm += sum * sum;
        }
        ASSERT_LE(std::sqrt(difference), tolerance * std::sqrt(norm)) << count << " " << row;
      }
    }
  }
}

TEST_P(ProductTest, GivesARowTheSameBitsInAnyCompany) {
  Product product = MakeProduct(FindExactRowCounts(GetParam(), {{.out = kOut, .in = kIn}}));
  const std::vector<float> all = Run(product, 0, kMaxRows);
  for (int64_t count = 1; count <= kMaxRows; count += count < 20 ? 1 : 13) {
    for (int64_t first = 0; first + count <= kMaxRows; first += 7) {
      const std::vector<float> some = Run(product, first, count);
      ASSERT_EQ(std::memcmp(some.data(), &all[first * kOut], some.size() * sizeof(float)), 0)
          << count << " rows from " << first;
    }
  }
}

TEST_P(ProductTest, TheSelfCheckFindsAtLeastTilesOfEightOrSingleRows) {
  const std::vector<int64_t> counts =
      FindExactRowCounts(GetParam(), {{.out = 96, .in = 192}, {.out = 192, .in = 96}});
  EXPECT_TRUE(std::is_sorted(counts.begin(), counts.end()));
  EXPECT_THAT(counts, testing::AnyOf(testing::Contains(8), testing::ElementsAre(1)));
}

}  // namespace
}  // namespace pregate
