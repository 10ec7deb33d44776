// The decoder-only transformer of all families, on LibTorch's matrix products and our kernels.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/expert/routing_trace.h"
#include "core/kernel/cpu_kernels.h"
#include "core/model/attention_layer.h"
#include "core/model/checkpoint.h"
#include "core/model/forward.h"
#include "core/model/gates_ahead.h"
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
  // `records.offload` outlives this.
  Transformer(ModelConfig config, ModelWeights weights, ExpertRecords records, Options options);
  Transformer(const Transformer&) = delete;
  Transformer& operator=(const Transformer&) = delete;

  // The logits of batch.logit_tokens, [their number, vocab_size], valid until the next call. Fills
  // `routing` unless it is null. INVALID_ARGUMENT: a batch that breaks a limit. An expert that
  // cannot be had fails only the runs that need it: see run_results.
  absl::StatusOr<absl::Span<const float>> Forward(const ForwardBatch& batch, Routing* routing);

  // From now on tokens go to the experts that `trace` recorded, whatever the gates say, with the
  // weights of those that the gates would have chosen: what runs is real, what it says is not.
  // Each goes where RoutingTrace::ForcedExperts says. Null ends it. INVALID_ARGUMENT: a trace of
  // another shape or without tokens.
  absl::Status ForceRouting(std::shared_ptr<const RoutingTrace> trace);

  // Of each run of the last Forward that returned OK; the logits of one that failed mean nothing.
  absl::Span<const RunResult> run_results() const { return run_results_; }

  // See MoeLayer::compute_time.
  Duration expert_compute_time() const { return moe_.compute_time(); }

  const ModelConfig& config() const { return config_; }
  const ModelWeights& weights() const { return weights_; }
  const Options& options() const { return options_; }
  uint64_t kv_bytes() const { return cache_.bytes(); }
  uint64_t workspace_bytes() const;

  // The shapes of the products.
  static std::vector<MatrixShape> ProductShapes(const ModelConfig& config);

 private:
  // Checks the batch and fills what a pass knows of its tokens.
  absl::Status Unpack(const ForwardBatch& batch);
  absl::Status RunLayer(uint32_t layer,
                        const ForwardBatch& batch,
                        const StepTokens& tokens,
                        Routing* routing);
  // Adds the last layer's look-ups to run_results_.
  void CountLookups(const ForwardBatch& batch);
  // Of the pass's tokens, those that went through a smaller encoding; each run's to run_results_.
  uint64_t CountReduced(const ForwardBatch& batch);
  void RecordRouting(const ForwardBatch& batch, const Routing& routing);
  // Replaces the ids that the gate of `layer` chose.
  void ForceExperts(uint32_t layer, RoutedTokens& routing) const;
  void Normalize(const at::Tensor& weight, const float* x, int64_t num_rows, float* out) const;
  absl::Span<const float> ComputeLogits(absl::Span<const uint32_t> logit_tokens);

  const ModelConfig config_;
  ModelWeights weights_;
  const Options options_;
  KvCache cache_;
  Product product_;
  AttentionLayer attention_;
  ExpertOffload& offload_;
  MoeLayer moe_;
  GatesAhead gates_ahead_;

  std::vector<uint32_t> token_ids_;
  std::vector<uint32_t> positions_;
  std::vector<TokenPlace> places_;
  std::vector<uint64_t> sequences_;
  bool is_prefill_ = false;  // the pass has tokens of prompts
  std::vector<RunResult> run_results_;
  std::vector<bool> is_reduced_;       // [tokens]: went through a smaller encoding
  std::vector<uint32_t> seen_in_run_;  // [num_experts]: 1 + the run that counted the expert last
  std::shared_ptr<const RoutingTrace> forced_;   // null: the gates choose
  Routing recorded_;                             // where the caller wants none
  std::vector<uint32_t> token_routing_;          // [num_layers, experts_per_token]
  at::Tensor residual_, normalized_, attended_;  // [max_tokens, hidden]
  at::Tensor logits_;                            // [most logit tokens yet, vocab]
  RoutedTokens routing_;                         // of the present block
  RoutedTokens next_routing_;                    // chosen by its pre-gate
};

}  // namespace pregate
