// Experts on a GPU: up, gate, activation and down products on encoded records in device memory,
// read in place, and the weighted sum of their outputs.
//
// Exactness: as of the products (product_cuda.h), so that a row has the same bits alone and beside
// others, with its expert alone in a launch or beside others.
//
// Thread-safe; nothing is kept between calls, allocated or waited for. Work is ordered by `stream`.
// Only launches fail here (INTERNAL, with CUDA's words); what a kernel meets shows at the stream.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "absl/status/status.h"
#include "core/kernel/codec.h"
#include "core/kernel/product_cuda.h"

namespace pregate {

// All pointers but `layout` are to device memory and 16-byte aligned; numbers of 16 bits are
// bfloat16. A place is token · num_chosen + k: the k-th choice of that token.
struct CudaExpertMlpArgs {
  const RecordLayout* layout = nullptr;  // read during the call alone
  Activation activation = Activation::kRelu;
  const ExpertSpan* experts = nullptr;       // [num_experts]
  const ExpertSpan* host_experts = nullptr;  // these two as in CudaProductArgs
  const uint32_t* host_places = nullptr;
  const uint32_t* places = nullptr;  // each at most once
  const uint16_t* x = nullptr;       // [num_tokens, hidden]
  uint16_t* inner = nullptr;         // [num_tokens · num_chosen, width]: scratch, a row a place
  float* out = nullptr;              // [num_tokens · num_chosen, hidden]: a row a place
  uint32_t num_experts = 0;          // at most 65535
  uint32_t num_chosen = 0;
  uint32_t max_rows = 0;  // no expert has more; a bound that is too high costs empty blocks
};
// out[p] = down · activation(gate · x[t], or up · x[t] without a gate) (· up · x[t]) for every
// place p = t · num_chosen + k of the spans; other rows of `out` stay as they are. The activated
// numbers are rounded to bfloat16 before `down`, sums are float32.
//
// INVALID_ARGUMENT, naming the limit: sizes that 32 does not divide, or numbers of float32 (codec
// none).
absl::Status ExpertMlp(const CudaExpertMlpArgs& args, cudaStream_t stream);

struct CudaCombineArgs {
  const float* expert_out = nullptr;  // [num_tokens · num_chosen, width]
  const float* weights = nullptr;     // [num_tokens, num_chosen]
  float* sum = nullptr;               // [num_tokens, width], added to
  int64_t num_tokens = 0;
  int64_t num_chosen = 0;
  int64_t width = 0;  // a multiple of 4
};
// sum[t] += Σ_k weights[t, k] · expert_out[t · num_chosen + k], k in order, for each token.
absl::Status Combine(const CudaCombineArgs& args, cudaStream_t stream);

}  // namespace pregate
