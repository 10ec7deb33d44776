// One block's attention: projections, QK-norm, RoPE, the KV cache.
#pragma once

#include <cstdint>

#include "absl/types/span.h"
#include "core/kernel/attention.h"
#include "core/model/checkpoint.h"
#include "core/model/compute.h"
#include "core/model/kv_cache.h"
#include "core/model/product.h"

namespace pregate {

// What every layer's attention needs and none owns. Used by one thread at a time.
class AttentionLayer {
 public:
  // `max_tokens` in a step, at positions below `max_context`. The references outlive this.
  AttentionLayer(const ModelConfig& config,
                 const CpuContext& cpu,
                 Product& product,
                 KvCache& cache,
                 int64_t max_tokens,
                 int64_t max_context);

  // out = output_proj(attention of x), x and out [num_tokens, hidden], of block `layer`, whose
  // weights are given; the tokens' keys and values are in the cache afterwards.
  void Run(uint32_t layer,
           const LayerWeights& weights,
           const StepTokens& tokens,
           const float* x,
           float* out);

  uint64_t workspace_bytes() const;

 private:
  void NormalizeAndRotate(const at::Tensor& norm,
                          const StepTokens& tokens,
                          int64_t num_heads,
                          float* x) const;

  const ModelConfig& config_;
  const CpuContext& cpu_;
  Product& product_;
  KvCache& cache_;
  at::Tensor cosines_, sines_;     // [max_context, head_dim / 2]
  at::Tensor queries_, attended_;  // [max_tokens, num_heads, head_dim]
  at::Tensor keys_, values_;       // [max_tokens, num_kv_heads, head_dim]
};

}  // namespace pregate
