// A JSON file of a model folder.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace pregate {

// INVALID_ARGUMENT when `path` does not hold a JSON object; errors of the system are MappedFile's.
absl::StatusOr<nlohmann::json> ReadJson(const std::string& path);

}  // namespace pregate
