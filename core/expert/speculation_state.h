// What predictors have learned, as a file: --speculation-state. docs/speculation.md has the format.
#pragma once

#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/expert/expert_predictor.h"

namespace pregate {

// Predictors' states by their modes' names.
using LearnedModes = std::map<std::string, std::string>;

// Whole or not at all.
absl::Status WriteSpeculationState(const std::string& path,
                                   const std::string& model,
                                   const PredictorShape& shape,
                                   const LearnedModes& modes);

// NOT_FOUND: there is no such file (yet). FAILED_PRECONDITION: of another model or shape, both
// named. DATA_LOSS: damaged. INVALID_ARGUMENT: not such a file at all, or of another version.
absl::StatusOr<LearnedModes> ReadSpeculationState(const std::string& path,
                                                  const std::string& model,
                                                  const PredictorShape& shape);

}  // namespace pregate
