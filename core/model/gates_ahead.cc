#include "core/model/gates_ahead.h"

#include "core/base/check.h"
#include "core/kernel/norm_rope.h"
#include "core/kernel/router.h"

namespace pregate {

GatesAhead::GatesAhead(const ModelConfig& config,
                       const CpuContext& cpu,
                       const std::vector<LayerWeights>& layers,
                       int64_t max_tokens)
    : config_(config),
      cpu_(cpu),
      layers_(layers),
      normalized_(EmptyTensor({max_tokens, config.hidden_size}, at::kFloat)),
      logits_(EmptyTensor({max_tokens, config.num_experts}, at::kFloat)),
      weights_(EmptyTensor({max_tokens, config.num_experts}, at::kFloat)),
      expert_ids_(EmptyTensor({max_tokens, config.num_experts}, at::kInt)) {}

uint64_t GatesAhead::workspace_bytes() const {
  return normalized_.nbytes() + logits_.nbytes() + weights_.nbytes() + expert_ids_.nbytes();
}

void GatesAhead::SetResidual(uint32_t layer, const float* residual, int64_t num_tokens) {
  layer_ = layer;
  residual_ = residual;
  num_tokens_ = num_tokens;
}

bool GatesAhead::Score(uint32_t distance, absl::Span<float> probabilities) {
  const size_t target = size_t{layer_} + distance;
  if (distance == 0 || target >= layers_.size()) return false;
  // A pre-gate reads what its own block's experts read.
  const bool has_gate = layers_[target].gate.defined();
  const LayerWeights& reader = layers_[has_gate ? target : target - 1];
  const at::Tensor& gate = has_gate ? reader.gate : reader.pregate;
  if (!gate.defined()) return false;
  PREGATE_CHECK(probabilities.size() == static_cast<size_t>(num_tokens_) * config_.num_experts);

  auto* normalized = normalized_.mutable_data_ptr<float>();
  RmsNorm(cpu_,
          {.x = residual_,
           .weight = reader.post_attention_norm.const_data_ptr<float>(),
           .out = normalized,
           .num_rows = num_tokens_,
           .width = config_.hidden_size,
           .epsilon = config_.rms_norm_eps});
  auto* ids = static_cast<uint32_t*>(expert_ids_.mutable_data_ptr());
  auto* weights = weights_.mutable_data_ptr<float>();
  Route(cpu_,
        {.x = normalized,
         .gate = gate.const_data_ptr<float>(),
         .logits = logits_.mutable_data_ptr<float>(),
         .expert_ids = ids,
         .weights = weights,
         .num_tokens = num_tokens_,
         .width = config_.hidden_size,
         .num_experts = config_.num_experts,
         .num_chosen = config_.num_experts});
  // From the order of their size to that of the experts.
  for (int64_t token = 0; token < num_tokens_; ++token) {
    const int64_t row = token * config_.num_experts;
    for (int64_t i = row; i < row + config_.num_experts; ++i) {
      probabilities[static_cast<size_t>(row + ids[i])] = weights[i];
    }
  }
  return true;
}

}  // namespace pregate
