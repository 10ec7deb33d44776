// Models with random weights: for benchmarks and tests that need a size, not a text.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "nlohmann/json.hpp"

namespace pregate {

// config.json of a named shape. "S": the research prototype's Switch, 6 layers × 8 experts, 512 →
// 2048 → 512, top-1, pre-gated, 140 million parameters.
nlohmann::ordered_json ShapeConfig(const std::string& name);

struct SynthesizeOptions {
  nlohmann::ordered_json config;  // a config.json; its "dtype" becomes the one below
  std::string dtype = "float32";  // or "bfloat16"
  uint64_t seed = 0;              // the same seed gives the same bytes
  std::string out;                // the folder to make; may exist when it is empty
};

// Writes a model folder in Hugging Face's layout, with a tokenizer of single bytes. The folder
// appears when it is whole. Shows its progress on stderr.
absl::Status Synthesize(const SynthesizeOptions& options);

}  // namespace pregate
