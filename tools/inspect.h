// What a model folder or a pack holds, without loading it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/storage/expert_pack.h"
#include "core/storage/safetensors.h"
#include "nlohmann/json.hpp"

namespace pregate {

// Tensors that differ only in the numbers of their layer and expert.
struct TensorGroup {
  std::string name;  // with * for the numbers
  TensorDtype dtype = TensorDtype::kF32;
  std::vector<int64_t> shape;
  uint64_t count = 0;
};

// A pack, by its header.
struct PackInspection {
  ExpertPackHeader header;
  uint64_t stride_bytes = 0;
  uint64_t parameters = 0;  // of all experts; 0: the pack does not say

  uint64_t num_records() const { return uint64_t{header.num_layers} * header.num_experts; }
  uint64_t bytes() const { return num_records() * header.record_bytes; }
};

// NOLINTNEXTLINE(bugprone-exception-escape): nlohmann-json's moves do not throw
struct ModelInspection {
  struct Part {
    uint64_t tensors = 0;
    uint64_t parameters = 0;
    uint64_t bytes = 0;
  };
  nlohmann::json config;               // config.json
  std::string dtype;                   // the tensors'; all of them, joined by "+", when they differ
  Part dense;                          // all but the experts
  Part experts;                        // of a packed folder one "tensor" is a record
  std::optional<PackInspection> pack;  // of a folder that `pregate-model pack` wrote
  std::vector<TensorGroup> groups;     // in alphabetical order
};

// Reads `folder`/config.json and the headers of its safetensors files and of its pack. Any family
// will do. Errors name the file at fault.
absl::StatusOr<ModelInspection> Inspect(const std::string& folder);

// The same of a pack alone.
absl::StatusOr<PackInspection> InspectPack(const std::string& path);

// The same as a table of a screen's size, and as one JSON object.
std::string InspectionTable(const ModelInspection& inspection);
std::string InspectionJson(const ModelInspection& inspection);
std::string InspectionTable(const PackInspection& inspection);
std::string InspectionJson(const PackInspection& inspection);

}  // namespace pregate
