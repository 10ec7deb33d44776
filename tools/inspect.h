// What a model folder holds, without loading it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
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

// NOLINTNEXTLINE(bugprone-exception-escape): nlohmann-json's moves do not throw
struct ModelInspection {
  struct Part {
    uint64_t tensors = 0;
    uint64_t parameters = 0;
    uint64_t bytes = 0;
  };
  nlohmann::json config;  // config.json
  std::string dtype;      // the tensors'; all of them, joined by "+", when they differ
  Part dense;             // all but the experts
  Part experts;
  std::vector<TensorGroup> groups;  // in alphabetical order
};

// Reads `folder`/config.json and the headers of its safetensors files. Any family will do. Errors
// name the file at fault.
absl::StatusOr<ModelInspection> Inspect(const std::string& folder);

// The same as a table of a screen's size, and as one JSON object.
std::string InspectionTable(const ModelInspection& inspection);
std::string InspectionJson(const ModelInspection& inspection);

}  // namespace pregate
