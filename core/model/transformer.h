// The decoder-only transformer of all families: what a pass is, whatever computes it.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/expert/routing_trace.h"
#include "core/model/compute.h"
#include "core/model/forward.h"
#include "core/model/model_config.h"
#include "core/model/moe_layer.h"

namespace pregate {

// Used by one thread at a time. Its methods may throw what LibTorch throws.
class Transformer {
 public:
  struct Options {
    uint32_t max_tokens = 0;  // in a pass
    uint32_t max_context = 0;
    uint32_t kv_block_size = 0;
    uint32_t num_kv_blocks = 0;
  };

  // `config`, `compute` and `records.offload` outlive this.
  Transformer(const ModelConfig& config,
              ModelCompute& compute,
              ExpertRecords records,
              const Options& options);
  Transformer(const Transformer&) = delete;
  Transformer& operator=(const Transformer&) = delete;

  // What follows batch.logit_tokens, valid until the next call. Fills `routing` unless it is null.
  // INVALID_ARGUMENT: a batch that breaks a limit. An expert that cannot be had fails only the runs
  // that need it: see run_results.
  absl::StatusOr<ModelCompute::Next> Forward(const ForwardBatch& batch, Routing* routing);

  // From now on tokens go to the experts that `trace` recorded, whatever the gates say, with the
  // weights of those that the gates would have chosen: what runs is real, what it says is not.
  // Each goes where RoutingTrace::ForcedExperts says. Null ends it. INVALID_ARGUMENT: a trace of
  // another shape or without tokens.
  absl::Status ForceRouting(std::shared_ptr<const RoutingTrace> trace);

  // Of each run of the last Forward that returned OK; the logits of one that failed mean nothing.
  absl::Span<const RunResult> run_results() const { return run_results_; }

  // See MoeLayer::compute_time.
  Duration expert_compute_time() const { return moe_.compute_time(); }

  const Options& options() const { return options_; }
  uint64_t kv_bytes() const { return compute_.kv_bytes(); }
  uint64_t workspace_bytes() const { return compute_.workspace_bytes() + moe_.workspace_bytes(); }

 private:
  // Checks the batch and fills what a pass knows of its tokens.
  absl::Status Unpack(const ForwardBatch& batch);
  absl::Status RunLayer(uint32_t layer, const ForwardBatch& batch, Routing* routing);
  // Adds the last layer's look-ups to run_results_.
  void CountLookups(const ForwardBatch& batch, absl::Span<const uint32_t> expert_ids);
  // Of the pass's tokens, those that went through a smaller encoding; each run's to run_results_.
  uint64_t CountReduced(const ForwardBatch& batch);
  void RecordRouting(const ForwardBatch& batch, const Routing& routing);
  // Replaces the ids that the gate of `layer` chose.
  void ForceExperts(uint32_t layer, absl::Span<uint32_t> expert_ids) const;

  const ModelConfig& config_;
  const Options options_;
  ModelCompute& compute_;
  ExpertOffload& offload_;
  MoeLayer moe_;

  std::vector<uint32_t> token_ids_;
  std::vector<uint32_t> positions_;
  std::vector<TokenPlace> places_;
  std::vector<uint64_t> sequences_;
  bool is_prefill_ = false;  // the pass has tokens of prompts
  std::vector<RunResult> run_results_;
  std::vector<bool> is_reduced_;       // [tokens]: went through a smaller encoding
  std::vector<uint32_t> seen_in_run_;  // [num_experts]: 1 + the run that counted the expert last
  std::shared_ptr<const RoutingTrace> forced_;  // null: the gates choose
  Routing recorded_;                            // where the caller wants none
  std::vector<uint32_t> token_routing_;         // [num_layers, experts_per_token]
};

}  // namespace pregate
