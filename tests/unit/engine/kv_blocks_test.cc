#include "core/engine/kv_blocks.h"

#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace pregate {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

using Tokens = std::vector<uint32_t>;

constexpr uint32_t kBlockSize = 2;

// A lease of so many blocks, of tokens that nobody else has.
std::optional<BlockLease> Reserve(BlockPool& pool, uint32_t blocks) {
  static uint32_t next = 1000;
  return pool.Reserve(Tokens(size_t{blocks} * kBlockSize, next++), 0);
}

// A lease whose tokens have all been computed.
BlockLease Computed(BlockPool& pool, const Tokens& tokens) {
  BlockLease lease = *pool.Reserve(tokens, 0);
  pool.Publish(lease, tokens);
  return lease;
}

TEST(BlockPool, LeasesEachBlockOnce) {
  BlockPool pool(5, kBlockSize);
  const std::optional<BlockLease> first = pool.Reserve(Tokens{1, 2, 3}, 0);
  const std::optional<BlockLease> second = pool.Reserve(Tokens{1, 2, 3, 4, 5}, 0);
  ASSERT_TRUE(first.has_value() && second.has_value());
  EXPECT_THAT(first->blocks(), ElementsAre(0, 1));
  EXPECT_THAT(second->blocks(), ElementsAre(2, 3, 4));
  EXPECT_EQ(pool.num_used(), 5u);
  EXPECT_EQ(pool.num_blocks(), 5u);
}

TEST(BlockPool, LeasesAllOrNothing) {
  BlockPool pool(3, kBlockSize);
  const std::optional<BlockLease> held = Reserve(pool, 2);
  EXPECT_FALSE(Reserve(pool, 2).has_value());
  EXPECT_EQ(pool.num_used(), 2u);
  EXPECT_TRUE(Reserve(pool, 1).has_value());
}

TEST(BlockPool, LeavesTheSpareBlocks) {
  BlockPool pool(3, kBlockSize);
  EXPECT_FALSE(pool.Reserve(Tokens{1, 2, 3}, 2).has_value());
  EXPECT_TRUE(pool.Reserve(Tokens{1, 2, 3}, 1).has_value());
}

TEST(BlockPool, ExtendsALeaseByAllOrNothing) {
  BlockPool pool(4, kBlockSize);
  BlockLease lease = *Reserve(pool, 1);
  EXPECT_TRUE(pool.Extend(lease, 5));
  EXPECT_THAT(lease.blocks(), ElementsAre(0, 1, 2));
  EXPECT_TRUE(pool.Extend(lease, 6));
  EXPECT_FALSE(pool.Extend(lease, 9));
  EXPECT_THAT(lease.blocks(), ElementsAre(0, 1, 2));
}

TEST(BlockPool, TakesBackWhatALeaseHeld) {
  BlockPool pool(4, kBlockSize);
  {
    const std::optional<BlockLease> lease = Reserve(pool, 4);
    EXPECT_EQ(pool.num_used(), 4u);
  }
  EXPECT_EQ(pool.num_used(), 0u);
  EXPECT_THAT(Reserve(pool, 4)->blocks(), UnorderedElementsAre(0, 1, 2, 3));
}

TEST(BlockPool, SharesPublishedBlocksWithWhoBeginsAlike) {
  BlockPool pool(8, kBlockSize);
  const BlockLease first = Computed(pool, {1, 2, 3, 4, 5});
  EXPECT_EQ(first.num_published(), 2u);  // the third block is not full
  EXPECT_EQ(pool.NumReusable(Tokens{1, 2, 3, 4, 5, 6, 7}), 4u);
  const BlockLease same = *pool.Reserve(Tokens{1, 2, 3, 4, 5, 6, 7}, 0);
  EXPECT_THAT(same.blocks(), ElementsAre(0, 1, 3, 4));
  EXPECT_EQ(same.num_published(), 2u);
  const BlockLease shorter = *pool.Reserve(Tokens{1, 2, 9, 4}, 0);
  EXPECT_THAT(shorter.blocks(), ElementsAre(0, 5));
  // The same tokens behind others are something else.
  const BlockLease shifted = *pool.Reserve(Tokens{3, 4, 5}, 0);
  EXPECT_EQ(shifted.num_published(), 0u);
  EXPECT_EQ(pool.num_used(), 8u);
}

TEST(BlockPool, LeavesTheLastTokenToBeComputed) {
  BlockPool pool(8, kBlockSize);
  const BlockLease first = Computed(pool, {1, 2, 3, 4});
  EXPECT_EQ(pool.Reserve(Tokens{1, 2, 3, 4}, 0)->num_published(), 1u);
  EXPECT_EQ(pool.Reserve(Tokens{1, 2}, 0)->num_published(), 0u);
}

TEST(BlockPool, KeepsWhatNobodyHoldsUntilItNeedsTheBlocks) {
  BlockPool pool(4, kBlockSize);
  Computed(pool, {1, 2, 3, 4});
  Computed(pool, {5, 6});
  EXPECT_EQ(pool.num_used(), 0u);
  EXPECT_EQ(pool.num_cached(), 3u);
  EXPECT_EQ(pool.NumReusable(Tokens{1, 2, 3, 4, 0}), 4u);
  // First the block without content, then the oldest, of that the end.
  const BlockLease one = *Reserve(pool, 1);
  EXPECT_EQ(pool.num_cached(), 3u);
  const BlockLease two = *Reserve(pool, 1);
  EXPECT_EQ(pool.NumReusable(Tokens{1, 2, 3, 4, 0}), 2u);
  const BlockLease three = *Reserve(pool, 1);
  EXPECT_EQ(pool.NumReusable(Tokens{1, 2, 3, 4, 0}), 0u);
  EXPECT_EQ(pool.NumReusable(Tokens{5, 6, 0}), 2u);
  EXPECT_EQ(pool.num_cached(), 1u);
}

TEST(BlockPool, DoesNotCountWhatItReusesAsFree) {
  BlockPool pool(2, kBlockSize);
  Computed(pool, {1, 2});
  // One block is reused and one is new: none is left over.
  EXPECT_FALSE(pool.Reserve(Tokens{1, 2, 3}, 1).has_value());
  EXPECT_EQ(pool.num_cached(), 1u);
  EXPECT_TRUE(pool.Reserve(Tokens{1, 2, 3}, 0).has_value());
}

TEST(BlockPool, KeepsOneOfTwoBlocksThatHoldTheSame) {
  BlockPool pool(4, kBlockSize);
  {
    BlockLease first = *pool.Reserve(Tokens{1, 2, 3, 4}, 0);
    BlockLease second = *pool.Reserve(Tokens{1, 2, 3, 4}, 0);
    pool.Publish(first, Tokens{1, 2});
    pool.Publish(second, Tokens{1, 2, 3, 4});
    EXPECT_THAT(second.blocks(), ElementsAre(2, 3));
    const BlockLease third = BlockLease(std::move(first));
    EXPECT_EQ(third.num_published(), 1u);
  }
  EXPECT_EQ(pool.num_cached(), 2u);
  EXPECT_THAT(pool.Reserve(Tokens{1, 2, 3, 4, 5}, 0)->blocks(), ElementsAre(0, 3, 2));
}

TEST(BlockLease, MovesAndGivesBackWhatItHeldBefore) {
  BlockPool pool(4, kBlockSize);
  BlockLease lease = *Reserve(pool, 1);
  BlockLease other = *Reserve(pool, 2);
  lease = std::move(other);
  EXPECT_THAT(lease.blocks(), ElementsAre(1, 2));
  EXPECT_EQ(pool.num_used(), 2u);

  const BlockLease third(std::move(lease));
  EXPECT_THAT(third.blocks(), ElementsAre(1, 2));
  EXPECT_EQ(pool.num_used(), 2u);
}

TEST(BlockLease, HoldsNothingByDefault) {
  BlockPool pool(2, kBlockSize);
  BlockLease lease;
  EXPECT_THAT(lease.blocks(), IsEmpty());
  lease = *Reserve(pool, 2);
  EXPECT_EQ(pool.num_used(), 2u);
  lease = BlockLease();
  EXPECT_EQ(pool.num_used(), 0u);
}

TEST(BlockPoolDeathTest, AbortsWhenALeaseOutlivesIt) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        BlockLease lease;
        BlockPool pool(2, kBlockSize);
        lease = *Reserve(pool, 1);
      },
      "1 blocks are still leased");
}

}  // namespace
}  // namespace pregate
