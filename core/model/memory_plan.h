// What the memory is used for, decided before anything is allocated.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "core/base/options.h"
#include "core/expert/slot_plan.h"
#include "core/kernel/codec.h"
#include "core/model/model_config.h"

namespace pregate {

// What a model needs wherever its experts are.
struct MemoryDemand {
  uint64_t dense_bytes = 0;
  uint64_t workspace_bytes = 0;
  uint64_t context_bytes = 0;  // that the device's driver takes
  uint32_t max_running = 0;
  uint32_t max_context = 0;     // tokens
  uint32_t kv_block_size = 0;   // tokens
  uint64_t kv_block_bytes = 0;  // in all layers
  uint32_t num_layers = 0;
  uint32_t num_experts = 0;  // in each layer
  uint32_t experts_per_token = 0;
  ExpertShape shape;
};

// Of a model in `dtype` whose sequences have up to `max_context` tokens, run with the limits of
// `options`.
MemoryDemand DemandOf(const ModelConfig& config,
                      Dtype dtype,
                      uint32_t max_context,
                      const EngineOptions& options);

// What there is to plan with.
struct MachineMemory {
  uint64_t host_bytes = 0;
  // Free on the GPU that computes; unset: the CPU does, whose device memory is the host's.
  std::optional<uint64_t> gpu_bytes;
};

struct MemoryPlan {
  MachineMemory machine;
  uint64_t device_bytes = 0;  // what may be used of the memory of the device that computes
  uint64_t dense_bytes = 0;
  uint64_t workspace_bytes = 0;
  uint64_t context_bytes = 0;
  uint64_t kv_bytes = 0;
  uint32_t num_kv_blocks = 0;

  Codec codec = Codec::kNone;
  std::optional<Codec> smaller_codec;  // the other one of "adaptive", in host memory beside it
  uint32_t num_records = 0;            // experts of the model
  uint64_t record_bytes = 0;           // of one, encoded
  uint64_t smaller_record_bytes = 0;
  SlotPlan slots;
  uint64_t host_tier_bytes = 0;  // experts in host memory: all, or as many as fit

  SlotNeeds slot_needs;  // what `slots` was planned from
  uint64_t slot_bytes() const {
    return slots.is_unified ? 0 : slots.num_slots * slot_needs.slot_bytes;
  }
  uint64_t all_records_bytes() const { return num_records * (record_bytes + smaller_record_bytes); }
  bool host_holds_all() const { return host_tier_bytes >= all_records_bytes(); }
};

// KV blocks are for max_running sequences of max_context tokens, or as many as fit into a quarter
// of the device's memory. The codec "auto" is the most exact of none, int8 and int4 with which at
// least half of the experts fit. Of the memory 10 % stays free; on a GPU gpu_memory_budget may say
// otherwise. FAILED_PRECONDITION or RESOURCE_EXHAUSTED, with advice, when it does not fit;
// INVALID_ARGUMENT names the option.
absl::StatusOr<MemoryPlan> PlanMemory(const MemoryDemand& demand,
                                      const ExpertOptions& options,
                                      const MachineMemory& machine);

// As a table for people.
std::string FormatMemoryPlan(const MemoryPlan& plan);

}  // namespace pregate
