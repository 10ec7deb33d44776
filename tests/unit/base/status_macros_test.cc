#include "core/base/status_macros.h"

#include <memory>

#include "gtest/gtest.h"

namespace pregate {
namespace {

absl::StatusOr<std::unique_ptr<int>> Make(int value) {
  if (value < 0) return absl::InvalidArgumentError("negative");
  return std::make_unique<int>(value);
}

absl::StatusOr<int> Sum(int a, int b) {
  PREGATE_ASSIGN_OR_RETURN(const std::unique_ptr<int> first, Make(a));
  PREGATE_ASSIGN_OR_RETURN(const std::unique_ptr<int> second, Make(b));
  return *first + *second;
}

absl::Status Both(const absl::Status& a, const absl::Status& b) {
  PREGATE_RETURN_IF_ERROR(a);
  PREGATE_RETURN_IF_ERROR(b);
  return absl::OkStatus();
}

TEST(StatusMacros, PassValuesAndTheFirstError) {
  EXPECT_EQ(*Sum(1, 2), 3);
  EXPECT_EQ(Sum(1, -1).status().message(), "negative");
  EXPECT_TRUE(Both(absl::OkStatus(), absl::OkStatus()).ok());
  EXPECT_EQ(Both(absl::OkStatus(), absl::InternalError("second")).message(), "second");
}

}  // namespace
}  // namespace pregate
