// The gate's product and the choice of experts, on a GPU.
//
// Exactness: a token's logits are sums in one order, a function of the gate's width alone. Of equal
// logits the lower id goes first, as on the CPU (router.h). Thread-safe; nothing is kept between
// calls, allocated or waited for. Work is ordered by `stream`.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "absl/status/status.h"

namespace pregate {

// Numbers of 16 bits are bfloat16.
struct CudaRouteArgs {
  const uint16_t* x = nullptr;     // [num_tokens, width]
  const float* gate = nullptr;     // [num_experts, width]
  float* logits = nullptr;         // [num_tokens, num_experts], written
  uint32_t* expert_ids = nullptr;  // [num_tokens, num_chosen], written: best first; may be the
                                   // host's mapped memory
  float* weights = nullptr;        // [num_tokens, num_chosen], written: of those experts
  float* probabilities = nullptr;  // [num_tokens, num_experts], written unless null: of all
  uint32_t num_tokens = 0;
  uint32_t width = 0;        // a multiple of 8
  uint32_t num_experts = 0;  // at most 1024
  uint32_t num_chosen = 0;   // 1 … num_experts
  bool renormalize = false;  // the chosen weights sum to one; else they are the probabilities
};
// Softmax over all experts of gate · x, then the num_chosen largest. INVALID_ARGUMENT: a size that
// is not allowed; INTERNAL, with CUDA's words: a launch that failed.
absl::Status Route(const CudaRouteArgs& args, cudaStream_t stream);

}  // namespace pregate
