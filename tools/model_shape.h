// The sizes of a model, as its config.json gives them, and the tensors that follow from them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/storage/safetensors.h"
#include "nlohmann/json.hpp"

namespace pregate {

struct ModelShape {
  std::string family;  // config.json's model_type: "switch_pregate" or "qwen3_moe"
  int64_t num_layers = 0;
  int64_t hidden = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
  int64_t num_experts = 0;  // a layer
  int64_t num_experts_per_token = 0;
  int64_t expert_intermediate = 0;  // an expert's inner width
  int64_t max_context = 0;          // tokens
  int64_t vocab_size = 0;
  bool tied = false;        // the head is the embedding
  bool use_pregate = true;  // switch_pregate alone
  std::vector<int64_t> eos_token_ids;
};

// INVALID_ARGUMENT names the key at fault, or the family that is not one of the above.
absl::StatusOr<ModelShape> ParseModelShape(const nlohmann::json& config);

// A tensor and the normal distribution that keeps activations at their scale when its values are
// drawn from it.
struct RandomTensor {
  TensorSpec spec;
  double mean = 0;
  double deviation = 0;
};

// The second moment of an expert's inner activations for standard normal inputs: of silu(x) · y
// when it is gated, else of relu(x). Down's weights are scaled by it.
constexpr double InnerPower(bool is_gated) { return is_gated ? 0.356 : 0.5; }

// All tensors of a model: names as in Hugging Face, matrices [out, in].
std::vector<RandomTensor> TensorsOf(const ModelShape& shape, TensorDtype dtype);

}  // namespace pregate
