// One block's experts: tokens grouped by expert, each expert computed once over its rows.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "core/base/clock.h"
#include "core/device/cpu_backend.h"
#include "core/expert/expert_offload.h"
#include "core/kernel/codec.h"
#include "core/model/aten.h"
#include "core/model/expert_network.h"
#include "core/model/model_config.h"
#include "core/model/product.h"

namespace pregate {

// Which experts a step's tokens go to.
struct RoutedTokens {
  at::Tensor expert_ids;  // int32 [max_tokens, experts_per_token], best first
  at::Tensor weights;     // float32, like expert_ids
};

// Where a model's experts are and how their records are to be read.
struct ExpertRecords {
  ExpertOffload* offload = nullptr;   // never null once a model is there
  std::vector<RecordLayout> layouts;  // of each encoding of the offload's cache
};

// What every layer's experts need and none owns. Used by one thread at a time.
class MoeLayer {
 public:
  // `max_tokens` in a step. The references and `records.offload` outlive this.
  MoeLayer(const ModelConfig& config,
           const CpuContext& cpu,
           Product& product,
           ExpertRecords records,
           int64_t max_tokens);

  // Room for the routing of a step's tokens.
  RoutedTokens MakeRouting() const;

  // Chooses experts for x [num_tokens, hidden] by `gate` [num_experts, hidden].
  void Route(const at::Tensor& gate, const float* x, int64_t num_tokens, RoutedTokens& routing);

  // residual += Σ weights · experts(x), both [num_tokens, hidden], summed in the router's order,
  // for the tokens of `routed`, whose experts `routing` holds. Experts are computed as they arrive.
  // Fails with what names the expert that could not be had.
  absl::Status Run(const RoutedLayer& routed,
                   const RoutedTokens& routing,
                   const float* x,
                   float* residual);

  struct Failure {
    uint32_t expert = 0;
    absl::Status status;  // names it and says why
  };
  // Of the last Run.
  absl::Span<const Failure> failures() const { return failures_; }
  // Of the last Run: how each expert was found [num_experts], for those that tokens went to, and
  // how long the pass waited for them.
  absl::Span<const Lookup> lookups() const { return lookups_; }
  Duration stall() const { return stall_; }
  // Of the last Run: the encoding that each expert was computed from [num_experts], for those that
  // tokens went to.
  absl::Span<const uint32_t> encodings() const { return encodings_; }
  // Spent computing experts, of all runs: their products and activations.
  Duration compute_time() const { return compute_time_; }
  // Of a record in an encoding.
  uint64_t RecordBytes(uint32_t encoding) const { return records_.layouts[encoding].bytes; }

  uint64_t workspace_bytes() const;

 private:
  // Fills first_row_, source_tokens_ and rows_.
  void GroupByExpert(const RoutedTokens& routing, int64_t num_tokens);
  void ZeroRows(uint32_t expert);
  void RunExpert(const RecordLayout& layout, const std::byte* record, uint32_t expert);

  const ModelConfig& config_;
  const CpuContext& cpu_;
  const ExpertRecords records_;
  ExpertNetwork network_;
  CallerStream stream_;

  // A row is a token at one of its experts; rows are ordered by expert, then token.
  std::vector<uint32_t> first_row_;      // [num_experts + 1]
  std::vector<uint32_t> source_tokens_;  // [num rows]: the token of each row
  std::vector<uint32_t> rows_;           // [num_tokens, experts_per_token]
  std::vector<ExpertId> ids_;            // that the step's tokens go to
  std::vector<Lookup> lookups_;          // [num_experts]
  std::vector<uint32_t> encodings_;      // [num_experts]
  std::vector<Failure> failures_;
  Duration stall_ = {};
  Duration compute_time_ = {};
  RealClock clock_;
  at::Tensor logits_;    // [max_tokens, num_experts]
  at::Tensor in_, out_;  // [max rows, hidden]
};

}  // namespace pregate
