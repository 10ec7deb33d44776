// Looks at every byte of a pack, and says what is damaged.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/storage/expert_pack.h"

namespace pregate {

struct Verification {
  uint64_t num_records = 0;
  uint64_t num_tensors = 0;  // 0 for a pack alone
  uint64_t bytes = 0;        // that were looked at
  uint64_t damaged_records = 0;
  uint64_t damaged_tensors = 0;
  std::vector<absl::Status> damages;  // one for each of these, by name
};

// `path` is a pack, or a folder that PackModel or Synthesize wrote: then the pack must also be one
// of the model in config.json, and the dense tensors what their checksums say. An error: the whole
// cannot be read, and why. All reads of the pack go through `pread`. Shows its progress on stderr.
absl::StatusOr<Verification> Verify(const std::string& path, const PreadFunction& pread = nullptr);

}  // namespace pregate
