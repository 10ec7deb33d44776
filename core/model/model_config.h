// A model's config.json and generation_config.json.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/base/options.h"
#include "core/engine/request.h"
#include "core/model/family.h"

namespace pregate {

struct ModelConfig {
  const FamilySpec* family = nullptr;
  uint32_t vocab_size = 0;
  uint32_t hidden_size = 0;
  uint32_t num_layers = 0;
  uint32_t num_heads = 0;
  uint32_t num_kv_heads = 0;
  uint32_t head_dim = 0;
  uint32_t num_experts = 0;
  uint32_t num_experts_per_token = 0;
  uint32_t expert_width = 0;  // moe_intermediate_size
  uint32_t max_positions = 0;
  double rope_theta = 0;
  float rms_norm_eps = 0;
  bool tie_word_embeddings = false;
  bool renormalize_weights = false;  // of the chosen experts
  bool use_pregate = false;          // blocks but the first are routed by the one before

  std::optional<Dtype> dtype;  // what the checkpoint says it is in; unset: it does not say
  std::vector<uint32_t> eos_token_ids;
  Sampling default_sampling;  // of generation_config.json, where that exists

  // Whether block `layer` has a gate, and a pre-gate.
  bool HasGate(uint32_t layer) const { return layer == 0 || !use_pregate; }
  bool HasPregate(uint32_t layer) const { return use_pregate && layer + 1 < num_layers; }
};

// Reads `folder`. NOT_FOUND or the system's error: no config.json. INVALID_ARGUMENT names the file,
// the key, its value and what is allowed; a feature that the transformer does not have (RoPE
// scaling, sliding windows, biases, quantized weights …) is refused and not ignored.
absl::StatusOr<ModelConfig> ReadModelConfig(const std::string& folder);

}  // namespace pregate
