// Models with random weights: for benchmarks and tests that need a size, not a text.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "core/base/options.h"
#include "core/kernel/codec.h"
#include "nlohmann/json.hpp"

namespace pregate {

// config.json of a named shape. "S": the research prototype's Switch, 6 layers × 8 experts, 512 →
// 2048 → 512, top-1, pre-gated, 140 million parameters. As qwen3_moe, with the sizes of "G":
// gpt-oss-20b (24 × 32, top-4), "Q": Qwen3-30B-A3B (48 × 128, top-8), "M": Mixtral-8x7B (32 × 8,
// top-2).
nlohmann::ordered_json ShapeConfig(const std::string& name);

struct SynthesizeOptions {
  nlohmann::ordered_json config;  // a config.json; its "dtype" becomes the one below
  Dtype dtype = Dtype::kFloat32;
  std::optional<Codec> pack;  // write a packed folder with this codec; unset: Hugging Face's layout
  uint64_t seed = 0;          // the same seed gives the same bytes
  std::string out;            // the folder to make; may exist when it is empty
};

// Writes a model folder with a tokenizer of single bytes. The folder appears when it is whole.
// Shows its progress on stderr.
absl::Status Synthesize(const SynthesizeOptions& options);

}  // namespace pregate
