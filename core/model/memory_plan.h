// How many KV blocks there are.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"

namespace pregate {

// Bytes of memory that this process may use: the machine's, or its control group's limit.
uint64_t HostMemoryBytes();

struct KvDemand {
  uint32_t max_running = 0;
  uint32_t max_context = 0;      // tokens
  uint32_t block_size = 0;       // tokens
  uint64_t bytes_per_block = 0;  // in all layers
};

// Blocks for max_running sequences of max_context tokens, or as many as fit into a quarter of
// `host_memory`. FAILED_PRECONDITION when that is not enough for one sequence.
absl::StatusOr<uint32_t> PlanKvBlocks(const KvDemand& demand, uint64_t host_memory);

}  // namespace pregate
