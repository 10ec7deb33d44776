// One block's experts: tokens grouped by expert, each expert computed once over its rows.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "core/model/checkpoint.h"
#include "core/model/product.h"

namespace pregate {

// Which experts a step's tokens go to.
struct RoutedTokens {
  at::Tensor expert_ids;  // int32 [max_tokens, experts_per_token], best first
  at::Tensor weights;     // float32, like expert_ids
};

// What every layer's experts need and none owns. Used by one thread at a time.
class MoeLayer {
 public:
  // `max_tokens` in a step. The references outlive this.
  MoeLayer(const ModelConfig& config,
           Dtype dtype,
           const CpuContext& cpu,
           Product& product,
           int64_t max_tokens);

  // Room for the routing of a step's tokens.
  RoutedTokens MakeRouting() const;

  // Chooses experts for x [num_tokens, hidden] by `gate` [num_experts, hidden].
  void Route(const at::Tensor& gate, const float* x, int64_t num_tokens, RoutedTokens& routing);

  // residual += Σ weights · experts(x), both [num_tokens, hidden], summed in the router's order. An
  // expert is read for the first time here, and INTERNAL when its weights are not finite.
  absl::Status Run(uint32_t layer,
                   std::vector<ExpertWeights>& experts,
                   const RoutedTokens& routing,
                   const float* x,
                   int64_t num_tokens,
                   float* residual);

  uint64_t workspace_bytes() const;

 private:
  // Fills first_row_, source_tokens_ and rows_.
  void GroupByExpert(const RoutedTokens& routing, int64_t num_tokens);
  void RunExpert(const ExpertWeights& weights, int64_t first_row, int64_t num_rows);

  const ModelConfig& config_;
  const Dtype dtype_;
  const CpuContext& cpu_;
  Product& product_;

  // A row is a token at one of its experts; rows are ordered by expert, then token.
  std::vector<uint32_t> first_row_;      // [num_experts + 1]
  std::vector<uint32_t> source_tokens_;  // [num rows]: the token of each row
  std::vector<uint32_t> rows_;           // [num_tokens, experts_per_token]
  at::Tensor logits_;                    // [max_tokens, num_experts]
  at::Tensor in_, out_;                  // [max rows, hidden]
  at::Tensor inner_, gated_;             // [max_tokens, expert_width]; gated_ only if experts are
};

}  // namespace pregate
