// The gate's product and the choice of experts.
#pragma once

#include <cstdint>

#include "core/kernel/cpu_kernels.h"

namespace pregate {

struct RouteArgs {
  const float* x = nullptr;        // [num_tokens, width]
  const float* gate = nullptr;     // [num_experts, width]
  float* logits = nullptr;         // [num_tokens, num_experts], written
  uint32_t* expert_ids = nullptr;  // [num_tokens, num_chosen], written: best first
  float* weights = nullptr;        // [num_tokens, num_chosen], written: of those experts
  int64_t num_tokens = 0;
  int64_t width = 0;
  int64_t num_experts = 0;
  int64_t num_chosen = 0;    // 1 … num_experts
  bool renormalize = false;  // the chosen weights sum to one; else they are the probabilities
};
// Softmax over all experts of gate · x, then the num_chosen largest; of equal logits the lower id
// goes first. Logits that are not numbers give weights that are not, and come last.
void Route(const CpuContext& cpu, const RouteArgs& args);

}  // namespace pregate
