// What is left of an expert's feed-forward network beside its matrix products.
#pragma once

#include <cstdint>

#include "core/kernel/cpu_kernels.h"

namespace pregate {

enum class Activation { kRelu, kSilu };

struct ActivateArgs {
  const float* x = nullptr;   // [count]
  const float* up = nullptr;  // [count], or null
  float* out = nullptr;       // [count]; may be x or up
  int64_t count = 0;
  Activation activation = Activation::kRelu;
};
// out = activation(x), times `up` unless that is null (a gated network).
void Activate(const CpuContext& cpu, const ActivateArgs& args);

struct CombineArgs {
  const float* expert_out = nullptr;  // [num rows, width]: a row per token and chosen expert
  const uint32_t* rows = nullptr;     // [num_tokens, num_chosen]: where each token's rows are
  const float* weights = nullptr;     // [num_tokens, num_chosen]
  float* sum = nullptr;               // [num_tokens, width], added to
  int64_t num_tokens = 0;
  int64_t num_chosen = 0;
  int64_t width = 0;
};
// sum += Σ_k weights[k] · expert_out[rows[k]], k in order, for each token.
void Combine(const CpuContext& cpu, const CombineArgs& args);

}  // namespace pregate
