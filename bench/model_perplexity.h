// Perplexity of a model folder.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "bench/perplexity.h"
#include "core/base/log.h"
#include "core/base/options.h"

namespace pregate {

struct ModelPerplexity {
  std::string model;
  std::string codec;  // of the experts
  std::string dtype;
  uint32_t context = 0;  // tokens; windows begin half of it apart
  Perplexity figures;
};

// Loads the model of `options` and scores `text` with windows of its context (less with
// options.max_context). Shows its progress on stderr.
absl::StatusOr<ModelPerplexity> MeasureModelPerplexity(EngineOptions options,
                                                       absl::string_view text,
                                                       const Logger& logger);

}  // namespace pregate
