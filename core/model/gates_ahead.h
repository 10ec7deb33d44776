// The gates of blocks to come, applied to the residual as it is now.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "core/expert/expert_predictor.h"
#include "core/kernel/cpu_kernels.h"
#include "core/model/aten.h"
#include "core/model/checkpoint.h"
#include "core/model/model_config.h"

namespace pregate {

// What a block adds to the residual is small beside it, so that the gate of the next block, behind
// that block's own norm, mostly chooses now what it will choose then. Of a pre-gated model the gate
// of a block is the pre-gate of the one before it. Used by one thread at a time.
class GatesAhead final : public GateLookahead {
 public:
  // `max_tokens` in a step. The references outlive this.
  GatesAhead(const ModelConfig& config,
             const CpuContext& cpu,
             const std::vector<LayerWeights>& layers,
             int64_t max_tokens);

  // Block `layer` is at work on `residual` [num_tokens, hidden], which stays until the next call.
  void SetResidual(uint32_t layer, const float* residual, int64_t num_tokens);

  bool Score(uint32_t distance, absl::Span<float> probabilities) override;

  uint64_t workspace_bytes() const;

 private:
  const ModelConfig& config_;
  const CpuContext& cpu_;
  const std::vector<LayerWeights>& layers_;
  uint32_t layer_ = 0;
  const float* residual_ = nullptr;
  int64_t num_tokens_ = 0;
  at::Tensor normalized_;        // [max_tokens, hidden]
  at::Tensor logits_, weights_;  // [max_tokens, num_experts]
  at::Tensor expert_ids_;        // the same
};

}  // namespace pregate
