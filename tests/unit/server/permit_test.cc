#include "server/permit.h"

#include <utility>

#include "core/base/thread.h"
#include "gtest/gtest.h"

namespace pregate {
namespace {

TEST(PermitTest, GivesNoMoreThanThereAre) {
  PermitPool pool(2);
  std::optional<Permit> first = pool.TryAcquire();
  std::optional<Permit> second = pool.TryAcquire();
  EXPECT_TRUE(first.has_value());
  EXPECT_TRUE(second.has_value());
  EXPECT_FALSE(pool.TryAcquire().has_value());
  first.reset();
  EXPECT_EQ(pool.num_free(), 1u);
  EXPECT_TRUE(pool.TryAcquire().has_value());
}

TEST(PermitTest, AMovedPermitIsGivenBackOnce) {
  PermitPool pool(1);
  {
    std::optional<Permit> permit = pool.TryAcquire();
    ASSERT_TRUE(permit.has_value());
    const Permit moved = *std::move(permit);
    permit.reset();
    EXPECT_EQ(pool.num_free(), 0u);
  }
  EXPECT_EQ(pool.num_free(), 1u);
}

TEST(PermitTest, WaitsUntilAllAreBack) {
  PermitPool pool(3);
  const auto now = std::chrono::steady_clock::now();
  EXPECT_TRUE(pool.AwaitAllFree(now)) << "nothing to wait for";
  std::optional<Permit> first = pool.TryAcquire();
  std::optional<Permit> second = pool.TryAcquire();
  EXPECT_FALSE(pool.AwaitAllFree(now)) << "its deadline has passed";
  first.reset();
  EXPECT_FALSE(pool.AwaitAllFree(now)) << "one is still out";
  const Thread giver("giver", [&second] { second.reset(); });
  EXPECT_TRUE(pool.AwaitAllFree(now + std::chrono::hours(1)));
}

}  // namespace
}  // namespace pregate
