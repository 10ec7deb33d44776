#include "core/expert/slot_plan.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace pregate {
namespace {

using ::testing::HasSubstr;

// 6 layers of 8 experts, top-1, a MiB each, on a device of its own memory.
SlotNeeds Switch() {
  return {.num_layers = 6,
          .num_experts = 8,
          .experts_per_token = 1,
          .max_running = 8,
          .slot_bytes = uint64_t{1} << 20};
}

uint32_t Count(const char* capacity, const SlotNeeds& needs = Switch()) {
  const absl::StatusOr<uint32_t> count = ParseSlotCount(capacity, needs);
  EXPECT_TRUE(count.ok()) << count.status();
  return count.value_or(0);
}

SlotPlan Plan(const char* strategy, const char* capacity, const SlotNeeds& needs = Switch()) {
  const absl::StatusOr<SlotPlan> plan = PlanSlots(strategy, capacity, needs);
  EXPECT_TRUE(plan.ok()) << plan.status();
  return plan.value_or(SlotPlan());
}

TEST(ParseSlotCount, TakesSharesCountsAndSizes) {
  EXPECT_EQ(Count("25%"), 12u);
  EXPECT_EQ(Count("100%"), 48u);
  EXPECT_EQ(Count("12.5%"), 6u);
  EXPECT_EQ(Count("6"), 6u);
  EXPECT_EQ(Count("5MiB"), 5u);
  EXPECT_EQ(Count("1%"), 1u) << "at least one";
  EXPECT_EQ(Count("1000"), 48u) << "at most one for each expert";
  EXPECT_EQ(Count("1TiB"), 48u);
}

TEST(ParseSlotCount, SaysWhatItTakes) {
  for (const char* bad : {"", "0", "0%", "101%", "-1%", "nan%", "half", "1023KiB", "-3"}) {
    const absl::StatusOr<uint32_t> count = ParseSlotCount(bad, Switch());
    EXPECT_EQ(count.status().code(), absl::StatusCode::kInvalidArgument) << bad;
    EXPECT_THAT(std::string(count.status().message()), HasSubstr("25%")) << bad;
  }
}

TEST(PlanSlots, AutoIsTheCacheWhereTwoLayersFit) {
  EXPECT_EQ(Plan("auto", "").strategy, "single_async");
  EXPECT_EQ(Plan("auto", "").num_slots, 48u);
  EXPECT_EQ(Plan("auto", "2").strategy, "single_async");
  EXPECT_EQ(Plan("auto", "1").strategy, "streaming");
  SlotNeeds needs = Switch();
  needs.budget_bytes = 13 * needs.slot_bytes + 5;
  EXPECT_EQ(Plan("auto", "", needs).num_slots, 13u) << "what the budget holds";
}

TEST(PlanSlots, AutoComputesInHostMemoryWhereNoSlotFits) {
  SlotNeeds needs = Switch();
  needs.budget_bytes = needs.slot_bytes - 1;
  EXPECT_EQ(Plan("auto", "", needs).strategy, "cpu_offload");
  EXPECT_EQ(PlanSlots("auto", "25%", needs).status().code(), absl::StatusCode::kResourceExhausted)
      << "slots were asked for";
}

TEST(PlanSlots, AutoCopiesNothingWhereMemoryIsShared) {
  SlotNeeds needs = Switch();
  needs.shares_memory = true;
  EXPECT_TRUE(Plan("auto", "", needs).is_unified);
  EXPECT_EQ(Plan("auto", "", needs).strategy, "cpu_offload");
  EXPECT_EQ(Plan("auto", "25%", needs).strategy, "single_async") << "slots were asked for";
  EXPECT_FALSE(Plan("auto", "25%", needs).is_unified);
}

TEST(PlanSlots, DoubleBufferHoldsWhatTwoLayersCanUse) {
  EXPECT_EQ(Plan("double_buffer", "").num_slots, 16u) << "8 sequences may use all 8 experts";
  SlotNeeds alone = Switch();
  alone.max_running = 1;
  EXPECT_EQ(Plan("double_buffer", "", alone).num_slots, 2u);
  EXPECT_EQ(Plan("double_buffer", "", alone).max_hinted_loads, 1u) << "half of them";
  EXPECT_TRUE(Plan("double_buffer", "").drop_after_use);
}

TEST(PlanSlots, StreamingIsSmallAndPrefetchesNothing) {
  EXPECT_EQ(Plan("streaming", ""),
            (SlotPlan{.strategy = "streaming", .num_slots = 4, .drop_after_use = true}));
}

TEST(PlanSlots, CpuOffloadHasNoSlotsToFill) {
  SlotNeeds needs = Switch();
  needs.budget_bytes = 0;
  EXPECT_TRUE(Plan("cpu_offload", "", needs).is_unified);
}

TEST(PlanSlots, RefusesWithAdvice) {
  SlotNeeds needs = Switch();
  needs.budget_bytes = 1000;
  EXPECT_EQ(PlanSlots("single_async", "", needs).status().message(),
            "no expert fits: one takes 1.0 MiB and 1000 B of device memory are left for experts; "
            "use a smaller --expert-codec, --max-context or --max-running, or --memory-strategy "
            "cpu_offload");
  needs.budget_bytes = 3 * needs.slot_bytes;
  EXPECT_EQ(PlanSlots("single_async", "25%", needs).status().message(),
            "expert_capacity: 25% is 12 experts of 1.0 MiB, but only 3 fit in the 3.0 MiB left for "
            "them");
  EXPECT_EQ(PlanSlots("lazy", "", needs).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace pregate
