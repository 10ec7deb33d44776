// The machine that this process runs on.
#pragma once

#include <cstdint>
#include <string>

namespace pregate {

struct HostInfo {
  std::string cpu;            // "AMD EPYC 7B13"; the architecture where the system names no model
  uint32_t num_cpus = 0;      // that this process may run on
  uint64_t memory_bytes = 0;  // HostMemoryBytes
};

HostInfo ReadHostInfo();

// Bytes of memory that this process may use: the machine's, or its control group's limit.
uint64_t HostMemoryBytes();

}  // namespace pregate
