#include "bench/spread.h"

#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace pregate {
namespace {

using ::testing::FieldsAre;

TEST(SpreadOf, IsMedianMinimumAndMaximum) {
  EXPECT_THAT(SpreadOf({7}), FieldsAre(7, 7, 7));
  EXPECT_THAT(SpreadOf({3, 1, 100}), FieldsAre(3, 1, 100));
  EXPECT_THAT(SpreadOf({4, 1, 2, 100}), FieldsAre(3, 1, 100));
}

TEST(Percentile, IsTheNearestRank) {
  std::vector<double> hundred;
  for (int i = 1; i <= 100; ++i) hundred.push_back(i);
  EXPECT_EQ(Percentile(hundred, 50), 50);
  EXPECT_EQ(Percentile(hundred, 99), 99);
  EXPECT_EQ(Percentile(hundred, 0), 1);
  EXPECT_EQ(Percentile(hundred, 100), 100);
  EXPECT_EQ(Percentile({1, 2, 7}, 50), 2);
  EXPECT_EQ(Percentile({1, 2, 7}, 90), 7);
  EXPECT_EQ(Percentile({4}, 50), 4);
}

}  // namespace
}  // namespace pregate
