#include "core/model/memory_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace pregate {
namespace {

constexpr KvDemand kDemand = {
    .max_running = 10, .max_context = 100, .block_size = 16, .bytes_per_block = 1000};

TEST(MemoryPlanTest, GivesEverySequenceItsWholeContext) {
  EXPECT_EQ(PlanKvBlocks(kDemand, 1 << 30).value(), 70u);  // 7 blocks for 100 tokens
}

TEST(MemoryPlanTest, TakesAtMostAQuarterOfTheMemory) {
  EXPECT_EQ(PlanKvBlocks(kDemand, 4 * 30'500).value(), 30u);
  EXPECT_EQ(PlanKvBlocks(kDemand, 4 * 7'000).value(), 7u);
}

TEST(MemoryPlanTest, RefusesWhenOneSequenceDoesNotFit) {
  const absl::Status status = PlanKvBlocks(kDemand, 4 * 6'999).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), testing::HasSubstr("100 tokens needs 6.8 KiB"));
}

TEST(MemoryPlanTest, TheMachineHasMemory) { EXPECT_GT(HostMemoryBytes(), uint64_t{1} << 20); }

}  // namespace
}  // namespace pregate
