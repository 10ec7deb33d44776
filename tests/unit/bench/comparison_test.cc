#include "bench/comparison.h"

#include <string>

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

TEST(Compare, TakesTurnsAndLeavesTheWarmupOut) {
  std::string order;
  const auto comparison = Compare(
      [&] {
        order += 'A';
        return order.size() == 1 ? 1000.0 : 2.0 + static_cast<double>(order.size());
      },
      [&] {
        order += 'B';
        return 10.0;
      },
      1,
      3);
  ASSERT_TRUE(comparison.ok()) << comparison.status();
  EXPECT_EQ(order, "ABABABAB");
  EXPECT_THAT(comparison->measured, FieldsAre(7, 5, 9));
  EXPECT_THAT(comparison->bound, FieldsAre(10, 10, 10));
  EXPECT_THAT(comparison->ratio, FieldsAre(0.7, 0.5, 0.9));
}

TEST(Compare, StopsAtAnError) {
  const auto comparison =
      Compare([] { return 1.0; }, [] { return absl::InternalError("no bound"); }, 0, 5);
  EXPECT_EQ(comparison.status().message(), "no bound");
}

}  // namespace
}  // namespace pregate
