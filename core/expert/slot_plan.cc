#include "core/expert/slot_plan.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "core/base/bytes.h"
#include "core/base/status_macros.h"

namespace pregate {
namespace {

// Enough for one expert to be loaded while another computes and a third's slot is freed.
constexpr uint32_t kStreamingSlots = 4;

// More loads ahead than that are guesses about guesses.
constexpr uint32_t kMostHintedLoads = 16;

uint32_t NumExperts(const SlotNeeds& needs) { return needs.num_layers * needs.num_experts; }

// Slots of two layers at most in use, when each of `tokens` chooses experts of its own.
uint32_t TwoLayers(const SlotNeeds& needs, uint32_t tokens) {
  const uint64_t active =
      std::min<uint64_t>(needs.num_experts, uint64_t{needs.experts_per_token} * tokens);
  return static_cast<uint32_t>(std::min<uint64_t>(2 * active, NumExperts(needs)));
}

absl::StatusOr<uint32_t> CountSlots(absl::string_view capacity,
                                    uint32_t wanted,
                                    const SlotNeeds& needs) {
  const uint64_t fitting = needs.budget_bytes / needs.slot_bytes;
  if (fitting == 0) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no expert fits: one takes ",
                     FormatBytes(needs.slot_bytes),
                     " and ",
                     FormatBytes(needs.budget_bytes),
                     " of device memory are left for experts; use a smaller --expert-codec, "
                     "--max-context or --max-running, or --memory-strategy cpu_offload"));
  }
  if (capacity.empty()) return static_cast<uint32_t>(std::min<uint64_t>(wanted, fitting));
  PREGATE_ASSIGN_OR_RETURN(const uint32_t asked, ParseSlotCount(capacity, needs));
  if (asked > fitting) {
    return absl::ResourceExhaustedError(absl::StrCat("expert_capacity: ",
                                                     capacity,
                                                     " is ",
                                                     asked,
                                                     " experts of ",
                                                     FormatBytes(needs.slot_bytes),
                                                     ", but only ",
                                                     fitting,
                                                     " fit in the ",
                                                     FormatBytes(needs.budget_bytes),
                                                     " left for them"));
  }
  return asked;
}

}  // namespace

absl::StatusOr<uint32_t> ParseSlotCount(absl::string_view capacity, const SlotNeeds& needs) {
  const auto refuse = [capacity] {
    return absl::InvalidArgumentError(absl::StrCat(
        "expert_capacity: '",
        capacity,
        "' is not a share above 0 up to 100% (25%), a number of experts (96) or a size that holds "
        "at least one (6GiB)"));
  };
  const uint32_t most = NumExperts(needs);
  absl::string_view share_text = capacity;
  if (absl::ConsumeSuffix(&share_text, "%")) {
    double percent = 0;
    if (!absl::SimpleAtod(share_text, &percent) || !(percent > 0 && percent <= 100)) {
      return refuse();
    }
    return std::max<uint32_t>(1, static_cast<uint32_t>(most * percent / 100));
  }
  uint64_t count = 0;
  if (!absl::SimpleAtoi(capacity, &count)) {
    const absl::StatusOr<uint64_t> bytes = ParseBytes(capacity);
    if (!bytes.ok()) return refuse();
    count = *bytes / needs.slot_bytes;
  }
  if (count == 0) return refuse();
  return static_cast<uint32_t>(std::min<uint64_t>(count, most));
}

absl::StatusOr<SlotPlan> PlanSlots(absl::string_view strategy,
                                   absl::string_view capacity,
                                   const SlotNeeds& needs) {
  const bool needs_no_slots = needs.shares_memory || needs.budget_bytes < needs.slot_bytes;
  if (strategy == "cpu_offload" || (strategy == "auto" && capacity.empty() && needs_no_slots)) {
    return SlotPlan{.strategy = "cpu_offload", .num_slots = 1, .is_unified = true};
  }
  if (strategy == "double_buffer") {
    PREGATE_ASSIGN_OR_RETURN(const uint32_t slots,
                             CountSlots(capacity, TwoLayers(needs, needs.max_running), needs));
    return SlotPlan{.strategy = "double_buffer",
                    .num_slots = slots,
                    .max_hinted_loads = slots / 2,
                    .drop_after_use = true};
  }
  if (strategy == "streaming") {
    PREGATE_ASSIGN_OR_RETURN(
        const uint32_t slots,
        CountSlots(capacity, std::min(kStreamingSlots, NumExperts(needs)), needs));
    return SlotPlan{.strategy = "streaming", .num_slots = slots, .drop_after_use = true};
  }
  if (strategy != "auto" && strategy != "single_async") {
    return absl::InvalidArgumentError(
        absl::StrCat("memory_strategy: '",
                     strategy,
                     "' is not one of auto, single_async, double_buffer, streaming, cpu_offload"));
  }
  PREGATE_ASSIGN_OR_RETURN(const uint32_t slots, CountSlots(capacity, NumExperts(needs), needs));
  if (strategy == "auto" && slots < TwoLayers(needs, 1)) {
    return SlotPlan{.strategy = "streaming", .num_slots = slots, .drop_after_use = true};
  }
  return SlotPlan{.strategy = "single_async",
                  .num_slots = slots,
                  .max_hinted_loads = std::clamp(slots / 4, uint32_t{1}, kMostHintedLoads)};
}

}  // namespace pregate
