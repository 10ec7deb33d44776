// Causal attention of grouped queries over a KV cache in blocks.
#pragma once

#include <cstdint>

#include "core/base/options.h"
#include "core/kernel/cpu_kernels.h"

namespace pregate {

inline constexpr int64_t kMaxHeadDim = 512;

// One layer's keys and values: two arrays [num_blocks, num_kv_heads, block_size, head_dim].
struct KvCacheView {
  void* keys = nullptr;
  void* values = nullptr;
  Dtype dtype = Dtype::kFloat32;
  int64_t num_kv_heads = 0;
  int64_t block_size = 0;
  int64_t head_dim = 0;  // at most kMaxHeadDim
};

// A token's place: its position and its sequence's blocks in order of position.
struct TokenPlace {
  const uint32_t* blocks = nullptr;
  uint32_t position = 0;
};

struct KvStoreArgs {
  const float* keys = nullptr;         // [num_tokens, num_kv_heads, head_dim]
  const float* values = nullptr;       // like keys
  const TokenPlace* places = nullptr;  // [num_tokens]
  int64_t num_tokens = 0;
  KvCacheView cache;
};
// Writes each token's keys and values to its place, rounded to the cache's dtype.
void KvStore(const CpuContext& cpu, const KvStoreArgs& args);

struct AttentionArgs {
  const float* queries = nullptr;      // [num_tokens, num_heads, head_dim]
  const TokenPlace* places = nullptr;  // [num_tokens]
  float* out = nullptr;                // [num_tokens, num_heads, head_dim]
  int64_t num_tokens = 0;
  int64_t num_heads = 0;  // a multiple of num_kv_heads
  float scale = 0;        // of the scores
  KvCacheView cache;
};
// Each token attends to the positions 0 … its own, all of which are in the cache. The order of the
// sums is that of the positions alone: neither neighbours nor the blocks' size change a bit. Online
// softmax (Milakov, Gimelshein: arXiv 1805.02867).
void Attention(const CpuContext& cpu, const AttentionArgs& args);

}  // namespace pregate
