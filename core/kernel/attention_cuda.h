// Causal attention of grouped queries over a KV cache in blocks, on a GPU.
//
// Exactness: a token's result is a function of its query and of the keys and values at the
// positions up to its own: neither neighbours, nor the blocks' size or place, nor whether it is one
// of a prompt change a bit. The context is cut at fixed positions, and the parts are added up in
// their order (Dao et al., Flash-Decoding; online softmax, Milakov, Gimelshein: arXiv 1805.02867).
//
// Thread-safe; nothing is kept between calls, allocated or waited for. Work is ordered by `stream`.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"

namespace pregate {

inline constexpr uint32_t kMaxCudaHeadDim = 256;
// The positions of a part of the context: launches up to the last position of a part are alike.
inline constexpr uint32_t kAttentionPart = 256;

// INVALID_ARGUMENT: heads of so many numbers are not done here.
absl::Status CheckHeadDim(uint32_t head_dim);

// One layer's keys and values in device memory, bfloat16: two arrays [num_blocks, num_kv_heads,
// block_size, head_dim].
struct CudaKvCache {
  uint16_t* keys = nullptr;
  uint16_t* values = nullptr;
  const uint32_t* block_table = nullptr;  // [sequences, max_blocks], in order of position
  uint32_t max_blocks = 0;
  uint32_t block_size = 0;
  uint32_t num_kv_heads = 0;
  uint32_t head_dim = 0;  // a multiple of 32, at most kMaxCudaHeadDim
};

struct CudaAttentionArgs {
  const float* queries = nullptr;       // [num_tokens, query_stride], the heads' first
  const uint32_t* positions = nullptr;  // [num_tokens]
  const uint32_t* sequences = nullptr;  // [num_tokens]: rows of the cache's block table
  std::byte* scratch = nullptr;         // AttentionScratchBytes, 16-byte aligned
  uint16_t* out = nullptr;              // [num_tokens, num_heads, head_dim], bfloat16
  uint32_t num_tokens = 0;
  uint32_t query_stride = 0;
  uint32_t num_heads = 0;     // a multiple of num_kv_heads
  uint32_t max_position = 0;  // no position is higher; one that is too high costs empty blocks
  float scale = 0;            // of the scores
  CudaKvCache cache;
};
// Each token attends to the positions 0 … its own, all of which are in the cache. INVALID_ARGUMENT:
// a head_dim that the kernels do not do; INTERNAL, with CUDA's words: a launch that failed.
absl::Status Attention(const CudaAttentionArgs& args, cudaStream_t stream);

// What Attention needs for so many tokens up to that position.
size_t AttentionScratchBytes(uint32_t num_tokens,
                             uint32_t num_heads,
                             uint32_t head_dim,
                             uint32_t max_position);

}  // namespace pregate
