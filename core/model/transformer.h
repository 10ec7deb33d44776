// The decoder-only transformer of all families, on LibTorch's matrix products and our kernels.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/kernel/cpu_kernels.h"
#include "core/model/attention_layer.h"
#include "core/model/checkpoint.h"
#include "core/model/forward.h"
#include "core/model/kv_cache.h"
#include "core/model/model_config.h"
#include "core/model/moe_layer.h"
#include "core/model/product.h"

namespace pregate {

// Used by one thread at a time. Its methods may throw what LibTorch throws.
class Transformer {
 public:
  struct Options {
    Dtype dtype = Dtype::kFloat32;
    CpuContext cpu;
    std::vector<int64_t> row_counts;  // of products: see Product
    uint32_t max_tokens = 0;          // in a pass
    uint32_t max_context = 0;
    uint32_t kv_block_size = 0;
    uint32_t num_kv_blocks = 0;
  };

  // Allocates all that a pass needs, but for logits of more tokens than were ever asked for.
  Transformer(ModelConfig config, ModelWeights weights, Options options);
  Transformer(const Transformer&) = delete;
  Transformer& operator=(const Transformer&) = delete;

  // The logits of batch.logit_tokens, [their number, vocab_size], valid until the next call. Fills
  // `routing` unless it is null. INVALID_ARGUMENT: a batch that breaks a limit. INTERNAL: an
  // expert's weights are not finite.
  absl::StatusOr<absl::Span<const float>> Forward(const ForwardBatch& batch, Routing* routing);

  const ModelConfig& config() const { return config_; }
  const ModelWeights& weights() const { return weights_; }
  const Options& options() const { return options_; }
  uint64_t kv_bytes() const { return cache_.bytes(); }
  uint64_t workspace_bytes() const;

  // The shapes of the products.
  static std::vector<MatrixShape> ProductShapes(const ModelConfig& config);

 private:
  // Checks the batch and fills token_ids_, positions_ and places_.
  absl::Status Unpack(const ForwardBatch& batch);
  absl::Status RunLayer(uint32_t layer, const StepTokens& tokens, Routing* routing);
  void Normalize(const at::Tensor& weight, const float* x, int64_t num_rows, float* out) const;
  absl::Span<const float> ComputeLogits(absl::Span<const uint32_t> logit_tokens);

  const ModelConfig config_;
  ModelWeights weights_;
  const Options options_;
  KvCache cache_;
  Product product_;
  AttentionLayer attention_;
  MoeLayer moe_;

  std::vector<uint32_t> token_ids_;
  std::vector<uint32_t> positions_;
  std::vector<TokenPlace> places_;
  at::Tensor residual_, normalized_, attended_;  // [max_tokens, hidden]
  at::Tensor logits_;                            // [most logit tokens yet, vocab]
  RoutedTokens routing_;                         // of the present block
  RoutedTokens next_routing_;                    // chosen by its pre-gate
};

}  // namespace pregate
