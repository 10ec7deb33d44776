// Normalization, rotation and embedding on a GPU: what stands between a pass's products.
//
// Exactness: each row is summed in one order, a function of its width alone. Thread-safe; nothing
// is kept between calls, allocated or waited for. Work is ordered by `stream`. Numbers of 16 bits
// are bfloat16. Only launches fail here (INTERNAL, with CUDA's words).
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "absl/status/status.h"
#include "core/kernel/attention_cuda.h"

namespace pregate {

struct CudaEmbedArgs {
  const uint16_t* table = nullptr;  // [any, width]
  const uint32_t* ids = nullptr;    // [num_rows]
  float* out = nullptr;             // [num_rows, width]
  uint32_t num_rows = 0;
  uint32_t width = 0;
};
// out[i] = table[ids[i]].
absl::Status Embed(const CudaEmbedArgs& args, cudaStream_t stream);

struct CudaRmsNormArgs {
  const float* x = nullptr;        // [any, width]
  const uint32_t* rows = nullptr;  // [num_rows]: which rows of x; null: the first num_rows
  const float* weight = nullptr;   // [width]
  uint16_t* out = nullptr;         // [num_rows, width]
  uint32_t num_rows = 0;
  uint32_t width = 0;
  float epsilon = 0;
};
// out[i] = x[rows[i]] / sqrt(mean(x[rows[i]]²) + epsilon) · weight, rounded.
absl::Status RmsNorm(const CudaRmsNormArgs& args, cudaStream_t stream);

struct CudaQkvArgs {
  // [num_tokens, (num_heads + 2 · num_kv_heads) · head_dim]: queries, keys, values of each token.
  // Queries are replaced; keys and values are not.
  float* qkv = nullptr;
  const float* query_norm = nullptr;    // [head_dim], or null
  const float* key_norm = nullptr;      // the same
  const float* cosines = nullptr;       // [max positions, head_dim / 2]
  const float* sines = nullptr;         // the same
  const uint32_t* positions = nullptr;  // [num_tokens]
  const uint32_t* sequences = nullptr;  // [num_tokens]: rows of the cache's block table
  uint32_t num_tokens = 0;
  uint32_t num_heads = 0;
  float epsilon = 0;
  CudaKvCache cache;
};
// Normalizes each head of queries and keys where there is a norm, rotates both by their position
// (the pairs i, i + head_dim / 2 by the i-th angle), and writes keys and values to the cache.
absl::Status PrepareQkv(const CudaQkvArgs& args, cudaStream_t stream);

}  // namespace pregate
