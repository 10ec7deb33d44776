#include "core/engine/kv_blocks.h"

#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace pregate {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

TEST(BlockPool, LeasesEachBlockOnce) {
  BlockPool pool(5);
  const std::optional<BlockLease> first = pool.Reserve(2);
  const std::optional<BlockLease> second = pool.Reserve(3);
  ASSERT_TRUE(first.has_value() && second.has_value());
  EXPECT_THAT(first->blocks(), ElementsAre(0, 1));
  EXPECT_THAT(second->blocks(), ElementsAre(2, 3, 4));
  EXPECT_EQ(pool.num_used(), 5u);
  EXPECT_EQ(pool.num_blocks(), 5u);
}

TEST(BlockPool, LeasesAllOrNothing) {
  BlockPool pool(3);
  const std::optional<BlockLease> held = pool.Reserve(2);
  EXPECT_FALSE(pool.Reserve(2).has_value());
  EXPECT_EQ(pool.num_used(), 2u);
  EXPECT_TRUE(pool.Reserve(1).has_value());
  EXPECT_TRUE(pool.Reserve(0).has_value());
}

TEST(BlockPool, ExtendsALeaseByAllOrNothing) {
  BlockPool pool(4);
  BlockLease lease = *pool.Reserve(1);
  EXPECT_TRUE(pool.Extend(lease, 2));
  EXPECT_THAT(lease.blocks(), ElementsAre(0, 1, 2));
  EXPECT_FALSE(pool.Extend(lease, 2));
  EXPECT_THAT(lease.blocks(), ElementsAre(0, 1, 2));
  EXPECT_EQ(pool.num_free(), 1u);
  lease = BlockLease();
  EXPECT_EQ(pool.num_free(), 4u);
}

TEST(BlockPool, TakesBackWhatALeaseHeld) {
  BlockPool pool(4);
  {
    const std::optional<BlockLease> lease = pool.Reserve(4);
    EXPECT_EQ(pool.num_used(), 4u);
  }
  EXPECT_EQ(pool.num_used(), 0u);
  EXPECT_THAT(pool.Reserve(4)->blocks(), UnorderedElementsAre(0, 1, 2, 3));
}

TEST(BlockLease, MovesAndGivesBackWhatItHeldBefore) {
  BlockPool pool(4);
  BlockLease lease = *pool.Reserve(1);
  BlockLease other = *pool.Reserve(2);
  lease = std::move(other);
  EXPECT_THAT(lease.blocks(), ElementsAre(1, 2));
  EXPECT_EQ(pool.num_used(), 2u);

  const BlockLease third(std::move(lease));
  EXPECT_THAT(third.blocks(), ElementsAre(1, 2));
  EXPECT_EQ(pool.num_used(), 2u);
}

TEST(BlockLease, HoldsNothingByDefault) {
  BlockPool pool(2);
  BlockLease lease;
  EXPECT_THAT(lease.blocks(), IsEmpty());
  lease = *pool.Reserve(2);
  EXPECT_EQ(pool.num_used(), 2u);
  lease = BlockLease();
  EXPECT_EQ(pool.num_used(), 0u);
}

TEST(BlockPoolDeathTest, AbortsWhenALeaseOutlivesIt) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        BlockLease lease;
        BlockPool pool(2);
        lease = *pool.Reserve(1);
      },
      "1 blocks are still leased");
}

}  // namespace
}  // namespace pregate
