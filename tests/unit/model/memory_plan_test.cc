#include "core/model/memory_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace pregate {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kMiB = uint64_t{1} << 20;

// 6 layers of 8 experts of 4 MiB in bfloat16, top-1; 192 MiB of experts.
MemoryDemand Demand() {
  return {
      .dense_bytes = 10 * kMiB,
      .workspace_bytes = kMiB,
      .max_running = 10,
      .max_context = 100,
      .kv_block_size = 16,
      .kv_block_bytes = 1000,
      .num_layers = 6,
      .num_experts = 8,
      .experts_per_token = 1,
      .shape = {
          .hidden_size = 512, .expert_width = 2048, .is_gated = false, .dtype = Dtype::kBfloat16}};
}

// `options` with another value of one of its members.
template <typename Member, typename Value>
ExpertOptions With(ExpertOptions options, Member member, Value value) {
  options.*member = value;
  return options;
}

MemoryPlan Plan(const ExpertOptions& options, uint64_t memory = 1024 * kMiB) {
  const absl::StatusOr<MemoryPlan> plan =
      PlanMemory(Demand(), options, {.host_bytes = memory, .gpu_bytes = {}});
  EXPECT_TRUE(plan.ok()) << plan.status();
  return plan.value_or(MemoryPlan());
}

TEST(MemoryPlan, GivesEverySequenceItsWholeContext) {
  EXPECT_EQ(Plan(ExpertOptions()).num_kv_blocks, 70u);  // 7 blocks for 100 tokens
}

TEST(MemoryPlan, GivesKeysAndValuesAtMostAQuarter) {
  MemoryDemand demand = Demand();
  demand.kv_block_bytes = 10 * kMiB;
  EXPECT_EQ(PlanMemory(demand, ExpertOptions(), {.host_bytes = 1024 * kMiB, .gpu_bytes = {}})
                ->num_kv_blocks,
            25u);
  const absl::Status status =
      PlanMemory(demand, ExpertOptions(), {.host_bytes = 4 * 69 * kMiB, .gpu_bytes = {}}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("100 tokens needs 70.0 MiB"));
}

TEST(MemoryPlan, CopiesNothingOnTheCpuUnlessAsked) {
  EXPECT_TRUE(Plan(ExpertOptions()).slots.is_unified);
  EXPECT_TRUE(Plan(ExpertOptions()).host_holds_all());
  EXPECT_EQ(Plan(ExpertOptions()).slot_bytes(), 0u);
  EXPECT_EQ(Plan(With(ExpertOptions(), &ExpertOptions::capacity, "25%")).slots.num_slots, 12u);
  EXPECT_FALSE(
      Plan(With(ExpertOptions(), &ExpertOptions::simulated_link, "1GiB/s,0us")).slots.is_unified);
  EXPECT_FALSE(Plan(With(ExpertOptions(), &ExpertOptions::unified_memory, "off")).slots.is_unified);
}

TEST(MemoryPlan, KeepsSlotsWithinTheDevicesBudget) {
  const MemoryPlan plan = Plan(With(ExpertOptions(), &ExpertOptions::gpu_memory_budget, 32 * kMiB));
  EXPECT_EQ(plan.slots.num_slots, 5u) << "10 + 1 MiB and the KV cache are taken off first";
  EXPECT_LE(plan.dense_bytes + plan.workspace_bytes + plan.kv_bytes + plan.slot_bytes(), 32 * kMiB);
}

TEST(MemoryPlan, HostMemoryThatIsTooSmallIsACacheOverDisk) {
  const MemoryPlan plan =
      Plan(With(ExpertOptions(), &ExpertOptions::host_memory_budget, 64 * kMiB));
  EXPECT_FALSE(plan.host_holds_all());
  EXPECT_EQ(plan.host_tier_bytes, 64 * kMiB);
  EXPECT_THAT(FormatMemoryPlan(plan), HasSubstr("a cache over disk of 48 experts of 4.0 MiB"));
  const absl::Status status =
      PlanMemory(Demand(),
                 With(ExpertOptions(), &ExpertOptions::host_memory_budget, 7 * kMiB),
                 {.host_bytes = 1024 * kMiB, .gpu_bytes = {}})
          .status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(status.message(), HasSubstr("do not hold two of 4.0 MiB"));
}

// The demand of Demand() on a GPU whose driver takes 50 MiB.
absl::StatusOr<MemoryPlan> PlanOnGpu(const ExpertOptions& options, uint64_t free_bytes) {
  MemoryDemand demand = Demand();
  demand.context_bytes = 50 * kMiB;
  return PlanMemory(demand, options, {.host_bytes = 1024 * kMiB, .gpu_bytes = free_bytes});
}

TEST(MemoryPlan, OnAGpuSlotsTakeWhatTheBudgetLeaves) {
  const absl::StatusOr<MemoryPlan> all = PlanOnGpu(ExpertOptions(), 950 * kMiB);
  ASSERT_TRUE(all.ok()) << all.status();
  EXPECT_FALSE(all->slots.is_unified) << "the host's memory is another";
  EXPECT_EQ(all->device_bytes, 900 * kMiB) << "of what the driver has taken, too";
  EXPECT_EQ(all->slots.num_slots, 48u);
  EXPECT_TRUE(all->host_holds_all());

  // 120 MiB less the driver's 50, dense 10, workspace 1 and keys and values leave 58 and a bit.
  const absl::StatusOr<MemoryPlan> some =
      PlanOnGpu(With(ExpertOptions(), &ExpertOptions::gpu_memory_budget, 120 * kMiB), 950 * kMiB);
  ASSERT_TRUE(some.ok()) << some.status();
  EXPECT_EQ(some->slots.num_slots, 14u);
  EXPECT_LE(some->dense_bytes + some->workspace_bytes + some->context_bytes + some->kv_bytes +
                some->slot_bytes(),
            120 * kMiB);
  EXPECT_THAT(FormatMemoryPlan(*some), HasSubstr("GPU free"));
  EXPECT_THAT(FormatMemoryPlan(*some), HasSubstr("what the GPU's driver takes"));
}

TEST(MemoryPlan, RefusesAGpuThatHasTooLittle) {
  const absl::Status more =
      PlanOnGpu(With(ExpertOptions(), &ExpertOptions::gpu_memory_budget, 500 * kMiB), 300 * kMiB)
          .status();
  EXPECT_EQ(more.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(more.message(), HasSubstr("500.0 MiB were asked for and 300.0 MiB are free"));
  const absl::Status less =
      PlanOnGpu(With(ExpertOptions(), &ExpertOptions::gpu_memory_budget, 55 * kMiB), 300 * kMiB)
          .status();
  EXPECT_EQ(less.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(less.message(), HasSubstr("do not fit into 55.0 MiB of GPU memory; lower"));
}

TEST(MemoryPlan, AutoTakesTheMostExactCodecOfWhichHalfFits) {
  EXPECT_EQ(Plan(With(ExpertOptions(), &ExpertOptions::codec, "auto")).codec, Codec::kNone);
  EXPECT_EQ(Plan(With(With(ExpertOptions(), &ExpertOptions::codec, "auto"),
                      &ExpertOptions::gpu_memory_budget,
                      110 * kMiB))
                .codec,
            Codec::kNone);
  EXPECT_EQ(Plan(With(With(ExpertOptions(), &ExpertOptions::codec, "auto"),
                      &ExpertOptions::gpu_memory_budget,
                      70 * kMiB))
                .codec,
            Codec::kInt8);
  EXPECT_EQ(Plan(With(With(ExpertOptions(), &ExpertOptions::codec, "auto"),
                      &ExpertOptions::gpu_memory_budget,
                      40 * kMiB))
                .codec,
            Codec::kInt4);
}

TEST(MemoryPlan, IsATable) {
  EXPECT_EQ(FormatMemoryPlan(Plan(With(ExpertOptions(), &ExpertOptions::capacity, "25%"))),
            "memory               size  for\n"
            "dense            10.0 MiB  all weights but the experts'\n"
            "kv               68.4 KiB  70 blocks of keys and values\n"
            "workspace         1.0 MiB  what a step computes with\n"
            "expert slots     48.0 MiB  12 slots, 25 % of 48 experts of 4.0 MiB, codec none\n"
            "host experts    192.0 MiB  all 48 experts of 4.0 MiB, codec none\n"
            "free            772.9 MiB  of 1.0 GiB\n"
            "memory strategy: single_async\n");
}

}  // namespace
}  // namespace pregate
