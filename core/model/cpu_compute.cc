#include "core/model/cpu_compute.h"

#include <algorithm>
#include <utility>

#include "core/kernel/expert_mlp.h"
#include "core/kernel/norm_rope.h"
#include "core/kernel/router.h"
#include "core/kernel/rows.h"
#include "core/kernel/sampling.h"

namespace pregate {
namespace {

int64_t MaxIn(const std::vector<MatrixShape>& shapes) {
  int64_t max = 0;
  for (const MatrixShape& shape : shapes) max = std::max(max, shape.in);
  return max;
}

int64_t MaxOut(const std::vector<MatrixShape>& shapes) {
  int64_t max = 0;
  for (const MatrixShape& shape : shapes) max = std::max(max, shape.out);
  return max;
}

}  // namespace

std::vector<MatrixShape> CpuCompute::ProductShapes(const ModelConfig& config) {
  const int64_t hidden = config.hidden_size;
  const int64_t query_size = int64_t{config.num_heads} * config.head_dim;
  const int64_t kv_size = int64_t{config.num_kv_heads} * config.head_dim;
  return {{query_size, hidden},
          {kv_size, hidden},
          {hidden, query_size},
          {config.expert_width, hidden},
          {hidden, config.expert_width},
          {config.vocab_size, hidden}};
}

CpuCompute::CpuCompute(const ModelConfig& config, ModelWeights weights, Options options)
    : config_(config),
      weights_(std::move(weights)),
      options_(std::move(options)),
      cache_(config_, options_.dtype, options_.kv_block_size, options_.num_kv_blocks),
      product_(options_.cpu,
               options_.dtype,
               options_.row_counts,
               MaxIn(ProductShapes(config_)),
               MaxOut(ProductShapes(config_))),
      attention_(
          config_, options_.cpu, product_, cache_, options_.max_tokens, options_.max_context),
      network_(config_, options_.cpu, product_, options_.max_tokens),
      gates_ahead_(config_, options_.cpu, weights_.layers, options_.max_tokens),
      source_tokens_(size_t{options_.max_tokens} * config_.num_experts_per_token),
      residual_(EmptyTensor({options_.max_tokens, config_.hidden_size}, at::kFloat)),
      normalized_(EmptyTensor({options_.max_tokens, config_.hidden_size}, at::kFloat)),
      attended_(EmptyTensor({options_.max_tokens, config_.hidden_size}, at::kFloat)),
      gate_logits_(EmptyTensor({options_.max_tokens, config_.num_experts}, at::kFloat)),
      expert_in_(EmptyTensor(
          {int64_t{options_.max_tokens} * config_.num_experts_per_token, config_.hidden_size},
          at::kFloat)),
      expert_out_(EmptyTensor(
          {int64_t{options_.max_tokens} * config_.num_experts_per_token, config_.hidden_size},
          at::kFloat)),
      logits_(EmptyTensor({1, config_.vocab_size}, at::kFloat)),
      routed_(MakeRouted()),
      next_routed_(MakeRouted()) {}

CpuCompute::Routed CpuCompute::MakeRouted() const {
  const int64_t max_tokens = options_.max_tokens;
  return {.expert_ids = EmptyTensor({max_tokens, config_.num_experts_per_token}, at::kInt),
          .weights = EmptyTensor({max_tokens, config_.num_experts_per_token}, at::kFloat)};
}

uint64_t CpuCompute::workspace_bytes() const {
  uint64_t bytes = attention_.workspace_bytes() + network_.workspace_bytes() +
                   gates_ahead_.workspace_bytes() + source_tokens_.size() * sizeof(uint32_t);
  for (const at::Tensor* tensor :
       {&residual_, &normalized_, &attended_, &gate_logits_, &expert_in_, &expert_out_, &logits_}) {
    bytes += tensor->nbytes();
  }
  return bytes;
}

absl::Status CpuCompute::Begin(const StepTokens& tokens) {
  tokens_ = tokens;
  Gather(options_.cpu,
         {.table = weights_.embedding.const_data_ptr(),
          .dtype = options_.dtype,
          .rows = tokens.ids.data(),
          .out = residual_.mutable_data_ptr<float>(),
          .num_rows = tokens.count(),
          .width = config_.hidden_size});
  return absl::OkStatus();
}

void CpuCompute::Normalize(const at::Tensor& weight,
                           const float* x,
                           int64_t num_rows,
                           float* out) const {
  RmsNorm(options_.cpu,
          {.x = x,
           .weight = weight.const_data_ptr<float>(),
           .out = out,
           .num_rows = num_rows,
           .width = config_.hidden_size,
           .epsilon = config_.rms_norm_eps});
}

void CpuCompute::Route(const at::Tensor& gate, Routed& routed) {
  pregate::Route(options_.cpu,
                 {.x = normalized_.const_data_ptr<float>(),
                  .gate = gate.const_data_ptr<float>(),
                  .logits = gate_logits_.mutable_data_ptr<float>(),
                  .expert_ids = static_cast<uint32_t*>(routed.expert_ids.mutable_data_ptr()),
                  .weights = routed.weights.mutable_data_ptr<float>(),
                  .num_tokens = tokens_.count(),
                  .width = config_.hidden_size,
                  .num_experts = config_.num_experts,
                  .num_chosen = config_.num_experts_per_token,
                  .renormalize = config_.renormalize_weights});
}

absl::Span<uint32_t> CpuCompute::IdsOf(const Routed& routed) const {
  return absl::MakeSpan(static_cast<uint32_t*>(routed.expert_ids.mutable_data_ptr()),
                        tokens_.ids.size() * config_.num_experts_per_token);
}

absl::StatusOr<ChosenExperts> CpuCompute::Attend(uint32_t layer) {
  const LayerWeights& weights = weights_.layers[layer];
  auto* residual = residual_.mutable_data_ptr<float>();
  auto* normalized = normalized_.mutable_data_ptr<float>();
  auto* attended = attended_.mutable_data_ptr<float>();
  Normalize(weights.input_norm, residual, tokens_.count(), normalized);
  attention_.Run(layer, weights, tokens_, normalized, attended);
  Add(options_.cpu, attended, residual, tokens_.count() * config_.hidden_size);

  Normalize(weights.post_attention_norm, residual, tokens_.count(), normalized);
  if (weights.gate.defined()) {
    Route(weights.gate, routed_);
  } else {
    std::swap(routed_, next_routed_);
  }
  if (weights.pregate.defined()) Route(weights.pregate, next_routed_);
  gates_ahead_.SetResidual(layer, residual, tokens_.count());
  return ChosenExperts{
      .own = IdsOf(routed_),
      .next = weights.pregate.defined() ? IdsOf(next_routed_) : absl::Span<uint32_t>()};
}

absl::Status CpuCompute::BeginExperts(const GroupedRows& rows) {
  rows_ = rows;
  for (size_t row = 0; row < rows.places.size(); ++row) {
    source_tokens_[row] = rows.places[row] / config_.num_experts_per_token;
  }
  Gather(options_.cpu,
         {.table = normalized_.const_data_ptr(),
          .dtype = Dtype::kFloat32,
          .rows = source_tokens_.data(),
          .out = expert_in_.mutable_data_ptr<float>(),
          .num_rows = static_cast<int64_t>(rows.places.size()),
          .width = config_.hidden_size});
  return absl::OkStatus();
}

absl::Status CpuCompute::RunExperts(absl::Span<const ReadyExpert> experts) {
  for (const ReadyExpert& ready : experts) {
    const int64_t first_row = rows_.first[ready.expert];
    network_.Run(options_.layouts[ready.encoding],
                 ready.record,
                 expert_in_.const_data_ptr<float>() + first_row * config_.hidden_size,
                 int64_t{rows_.first[ready.expert + 1]} - first_row,
                 expert_out_.mutable_data_ptr<float>() + first_row * config_.hidden_size);
  }
  return absl::OkStatus();
}

absl::Status CpuCompute::EndExperts(absl::Span<const uint32_t> missing) {
  auto* out = expert_out_.mutable_data_ptr<float>();
  // Rows that nobody computed must not hold what an earlier step left.
  for (const uint32_t expert : missing) {
    std::fill(out + int64_t{rows_.first[expert]} * config_.hidden_size,
              out + int64_t{rows_.first[expert + 1]} * config_.hidden_size,
              0.0f);
  }
  Combine(options_.cpu,
          {.expert_out = out,
           .rows = rows_.rows.data(),
           .weights = routed_.weights.const_data_ptr<float>(),
           .sum = residual_.mutable_data_ptr<float>(),
           .num_tokens = tokens_.count(),
           .num_chosen = config_.num_experts_per_token,
           .width = config_.hidden_size});
  return absl::OkStatus();
}

absl::StatusOr<ModelCompute::Next> CpuCompute::Logits(absl::Span<const uint32_t> tokens,
                                                      uint32_t num_greedy) {
  const auto count = static_cast<int64_t>(tokens.size());
  if (count > logits_.size(0)) logits_ = EmptyTensor({count, config_.vocab_size}, at::kFloat);
  auto* normalized = normalized_.mutable_data_ptr<float>();
  Gather(options_.cpu,
         {.table = residual_.const_data_ptr(),
          .dtype = Dtype::kFloat32,
          .rows = tokens.data(),
          .out = normalized,
          .num_rows = count,
          .width = config_.hidden_size});
  Normalize(weights_.final_norm, normalized, count, normalized);
  auto* logits = logits_.mutable_data_ptr<float>();
  product_.Run(normalized, count, weights_.head, logits);
  const size_t vocab = config_.vocab_size;
  Next next;
  for (uint32_t i = 0; i < num_greedy; ++i) {
    next.greedy.push_back(MostLikely(absl::MakeConstSpan(logits + i * vocab, vocab)));
  }
  next.logits = absl::MakeConstSpan(logits, tokens.size() * vocab).subspan(num_greedy * vocab);
  return next;
}

}  // namespace pregate
