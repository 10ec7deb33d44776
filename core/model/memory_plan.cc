#include "core/model/memory_plan.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/base/bytes.h"

namespace pregate {
namespace {

constexpr uint64_t kKvShare = 4;  // the KV cache gets at most one part of as many

uint64_t CeilDivide(uint64_t a, uint64_t b) { return (a + b - 1) / b; }

}  // namespace

uint64_t HostMemoryBytes() {
  uint64_t bytes =
      static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  // Version 2, then version 1 of control groups; "max" is not a number and stays without effect.
  for (const char* path :
       {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    uint64_t limit = 0;
    if (std::ifstream(path) >> limit) bytes = std::min(bytes, limit);
  }
  return bytes;
}

absl::StatusOr<uint32_t> PlanKvBlocks(const KvDemand& demand, uint64_t host_memory) {
  const uint64_t blocks_per_sequence = CeilDivide(demand.max_context, demand.block_size);
  const uint64_t wanted = blocks_per_sequence * demand.max_running;
  const uint64_t budget = host_memory / kKvShare;
  const uint64_t fitting = budget / std::max<uint64_t>(1, demand.bytes_per_block);
  if (fitting < blocks_per_sequence) {
    return absl::FailedPreconditionError(
        absl::StrCat("the KV cache of one sequence of ",
                     demand.max_context,
                     " tokens needs ",
                     FormatBytes(blocks_per_sequence * demand.bytes_per_block),
                     ", more than a quarter of the memory (",
                     FormatBytes(budget),
                     "); lower max_context"));
  }
  return static_cast<uint32_t>(std::min({wanted, fitting, uint64_t{UINT32_MAX}}));
}

}  // namespace pregate
