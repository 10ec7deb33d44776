#include "core/model/attention_layer.h"

#include <cmath>

#include "core/kernel/norm_rope.h"

namespace pregate {

AttentionLayer::AttentionLayer(const ModelConfig& config,
                               const CpuContext& cpu,
                               Product& product,
                               KvCache& cache,
                               int64_t max_tokens,
                               int64_t max_context)
    : config_(config),
      cpu_(cpu),
      product_(product),
      cache_(cache),
      cosines_(EmptyTensor({max_context, config.head_dim / 2}, at::kFloat)),
      sines_(EmptyTensor({max_context, config.head_dim / 2}, at::kFloat)),
      queries_(EmptyTensor({max_tokens, config.num_heads, config.head_dim}, at::kFloat)),
      attended_(EmptyTensor({max_tokens, config.num_heads, config.head_dim}, at::kFloat)),
      keys_(EmptyTensor({max_tokens, config.num_kv_heads, config.head_dim}, at::kFloat)),
      values_(EmptyTensor({max_tokens, config.num_kv_heads, config.head_dim}, at::kFloat)) {
  FillRopeTable(max_context,
                config.head_dim,
                config.rope_theta,
                cosines_.mutable_data_ptr<float>(),
                sines_.mutable_data_ptr<float>());
}

uint64_t AttentionLayer::workspace_bytes() const {
  uint64_t bytes = 0;
  for (const at::Tensor* tensor : {&cosines_, &sines_, &queries_, &attended_, &keys_, &values_}) {
    bytes += tensor->nbytes();
  }
  return bytes;
}

void AttentionLayer::NormalizeAndRotate(const at::Tensor& norm,
                                        const StepTokens& tokens,
                                        int64_t num_heads,
                                        float* x) const {
  if (norm.defined()) {
    RmsNorm(cpu_,
            {.x = x,
             .weight = norm.const_data_ptr<float>(),
             .out = x,
             .num_rows = tokens.count() * num_heads,
             .width = config_.head_dim,
             .epsilon = config_.rms_norm_eps});
  }
  Rope(cpu_,
       {.x = x,
        .positions = tokens.positions.data(),
        .cosines = cosines_.const_data_ptr<float>(),
        .sines = sines_.const_data_ptr<float>(),
        .num_tokens = tokens.count(),
        .num_heads = num_heads,
        .head_dim = config_.head_dim});
}

void AttentionLayer::Run(uint32_t layer,
                         const LayerWeights& weights,
                         const StepTokens& tokens,
                         const float* x,
                         float* out) {
  auto* queries = queries_.mutable_data_ptr<float>();
  auto* keys = keys_.mutable_data_ptr<float>();
  auto* values = values_.mutable_data_ptr<float>();
  product_.Run(x, tokens.count(), weights.query, queries);
  product_.Run(x, tokens.count(), weights.key, keys);
  product_.Run(x, tokens.count(), weights.value, values);
  NormalizeAndRotate(weights.query_norm, tokens, config_.num_heads, queries);
  NormalizeAndRotate(weights.key_norm, tokens, config_.num_kv_heads, keys);

  const KvCacheView cache = cache_.layer(layer);
  KvStore(cpu_,
          {.keys = keys,
           .values = values,
           .places = tokens.places.data(),
           .num_tokens = tokens.count(),
           .cache = cache});
  Attention(cpu_,
            {.queries = queries,
             .places = tokens.places.data(),
             .out = attended_.mutable_data_ptr<float>(),
             .num_tokens = tokens.count(),
             .num_heads = config_.num_heads,
             .scale = 1.0f / std::sqrt(static_cast<float>(config_.head_dim)),
             .cache = cache});
  product_.Run(attended_.const_data_ptr<float>(), tokens.count(), weights.output, out);
}

}  // namespace pregate
