// The header of a safetensors file: what it says, and whether that can be true.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/storage/safetensors.h"

namespace pregate {

struct SafetensorsHeader {
  struct Tensor {
    TensorSpec spec;
    uint64_t begin = 0;  // bytes from the end of the header
    uint64_t end = 0;
  };
  uint64_t size = 0;            // bytes in front of the first tensor's
  std::vector<Tensor> tensors;  // in the order of their bytes, which they cover without a gap
  std::map<std::string, std::string> metadata;
};

// Reads and validates the header of a file whose bytes are `file`. INVALID_ARGUMENT names the
// tensor and the offset at fault, but not the file.
absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(absl::Span<const std::byte> file);

// The header in its serialized form, with the tensors' bytes one after another in the given order.
// INVALID_ARGUMENT as SafetensorsWriter::Create. `data_size` becomes the size of those bytes.
absl::StatusOr<std::string> SerializeSafetensorsHeader(
    const std::vector<TensorSpec>& tensors,
    const std::map<std::string, std::string>& metadata,
    uint64_t& data_size);

}  // namespace pregate
