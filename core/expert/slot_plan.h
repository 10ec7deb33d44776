// How a memory strategy uses the slots: presets of the one cache (docs/expert-offload.md).
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace pregate {

// What a plan is made from.
struct SlotNeeds {
  uint32_t num_layers = 0;
  uint32_t num_experts = 0;  // in each layer
  uint32_t experts_per_token = 0;
  uint32_t max_running = 1;            // sequences in a step
  uint64_t slot_bytes = 0;             // of device memory, for one expert
  uint64_t budget_bytes = UINT64_MAX;  // device memory for slots
  bool shares_memory = false;          // device and host are one: nothing has to be copied
};

struct SlotPlan {
  std::string strategy;  // single_async, double_buffer, streaming or cpu_offload
  uint32_t num_slots = 0;
  uint32_t max_hinted_loads = 0;  // under way at a time; 0 = no prefetch
  bool drop_after_use = false;
  bool is_unified = false;  // experts are used where they lie in host memory
  friend bool operator==(const SlotPlan&, const SlotPlan&) = default;
};

// Slots that "25%" (of all experts), "96" or "6GiB" mean: at least one, at most one for each
// expert. INVALID_ARGUMENT says what is wrong.
absl::StatusOr<uint32_t> ParseSlotCount(absl::string_view capacity, const SlotNeeds& needs);

// The plan for --memory-strategy `strategy` and --expert-capacity `capacity` ("" = what the
// strategy wants and the budget allows). "auto" is single_async where at least two layers' worth of
// a token's experts fit, streaming with fewer slots, cpu_offload without any, and cpu_offload too
// where nothing has to be copied and no capacity is asked for. RESOURCE_EXHAUSTED, with advice: the
// budget holds no slot for another strategy, or less than the capacity.
absl::StatusOr<SlotPlan> PlanSlots(absl::string_view strategy,
                                   absl::string_view capacity,
                                   const SlotNeeds& needs);

}  // namespace pregate
