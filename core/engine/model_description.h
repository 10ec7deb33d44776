// What is known of a model, for clients and for defaults.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/engine/request.h"

namespace pregate {

struct ModelDescription {
  std::string name;    // what requests call it
  std::string family;  // config.json's model_type
  std::string dtype;   // of weights and products: "float32" or "bfloat16"
  uint32_t vocab_size = 0;
  uint32_t max_context = 0;  // tokens of prompt and answer
  uint32_t num_layers = 0;
  uint32_t num_experts = 0;  // a layer
  uint32_t num_experts_per_token = 0;
  uint64_t num_parameters = 0;
  std::vector<uint32_t> eos_token_ids;
  Sampling default_sampling;  // generation_config.json's, where a request leaves a field unset
};

}  // namespace pregate
