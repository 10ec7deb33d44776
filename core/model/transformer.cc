#include "core/model/transformer.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/kernel/norm_rope.h"
#include "core/kernel/rows.h"

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

std::vector<MatrixShape> Transformer::ProductShapes(const ModelConfig& config) {
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

Transformer::Transformer(ModelConfig config, ModelWeights weights, Options options)
    : config_(std::move(config)),
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
      moe_(config_, options_.dtype, options_.cpu, product_, options_.max_tokens),
      residual_(EmptyTensor({options_.max_tokens, config_.hidden_size}, at::kFloat)),
      normalized_(EmptyTensor({options_.max_tokens, config_.hidden_size}, at::kFloat)),
      attended_(EmptyTensor({options_.max_tokens, config_.hidden_size}, at::kFloat)),
      logits_(EmptyTensor({1, config_.vocab_size}, at::kFloat)),
      routing_(moe_.MakeRouting()),
      next_routing_(moe_.MakeRouting()) {
  token_ids_.reserve(options_.max_tokens);
  positions_.reserve(options_.max_tokens);
  places_.reserve(options_.max_tokens);
}

uint64_t Transformer::workspace_bytes() const {
  return attention_.workspace_bytes() + moe_.workspace_bytes() + 3 * residual_.nbytes() +
         logits_.nbytes();
}

absl::Status Transformer::Unpack(const ForwardBatch& batch) {
  token_ids_.clear();
  positions_.clear();
  places_.clear();
  for (const TokenRun& run : batch.runs) {
    const uint64_t end = uint64_t{run.first_position} + run.token_ids.size();
    if (end > options_.max_context) {
      return absl::InvalidArgumentError(absl::StrCat(
          "position ", end - 1, " is beyond the context of ", options_.max_context, " tokens"));
    }
    if (end > run.blocks.size() * uint64_t{options_.kv_block_size}) {
      return absl::InvalidArgumentError(absl::StrCat("position ",
                                                     end - 1,
                                                     " is beyond the ",
                                                     run.blocks.size(),
                                                     " KV blocks of its sequence"));
    }
    for (const uint32_t block : run.blocks) {
      if (block < options_.num_kv_blocks) continue;
      return absl::InvalidArgumentError(absl::StrCat(
          "KV block ", block, " is not one of the ", options_.num_kv_blocks, " there are"));
    }
    for (size_t i = 0; i < run.token_ids.size(); ++i) {
      if (run.token_ids[i] >= config_.vocab_size) {
        return absl::InvalidArgumentError(absl::StrCat("token id ",
                                                       run.token_ids[i],
                                                       " is not below the vocabulary's size, ",
                                                       config_.vocab_size));
      }
      const auto position = static_cast<uint32_t>(run.first_position + i);
      token_ids_.push_back(run.token_ids[i]);
      positions_.push_back(position);
      places_.push_back({.blocks = run.blocks.data(), .position = position});
    }
    if (token_ids_.size() > options_.max_tokens) {
      return absl::InvalidArgumentError(
          absl::StrCat("more than ", options_.max_tokens, " tokens in one pass"));
    }
  }
  if (batch.logit_tokens.size() > token_ids_.size()) {
    return absl::InvalidArgumentError(absl::StrCat("logits of ",
                                                   batch.logit_tokens.size(),
                                                   " tokens were asked for, of ",
                                                   token_ids_.size(),
                                                   " in the pass"));
  }
  for (const uint32_t token : batch.logit_tokens) {
    if (token < token_ids_.size()) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "logits of token ", token, " were asked for, of ", token_ids_.size(), " in the pass"));
  }
  return absl::OkStatus();
}

void Transformer::Normalize(const at::Tensor& weight,
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

absl::Status Transformer::RunLayer(uint32_t layer, const StepTokens& tokens, Routing* routing) {
  LayerWeights& weights = weights_.layers[layer];
  auto* residual = residual_.mutable_data_ptr<float>();
  auto* normalized = normalized_.mutable_data_ptr<float>();
  auto* attended = attended_.mutable_data_ptr<float>();
  Normalize(weights.input_norm, residual, tokens.count(), normalized);
  attention_.Run(layer, weights, tokens, normalized, attended);
  Add(options_.cpu, attended, residual, tokens.count() * config_.hidden_size);

  Normalize(weights.post_attention_norm, residual, tokens.count(), normalized);
  if (weights.gate.defined()) moe_.Route(weights.gate, normalized, tokens.count(), routing_);
  if (weights.pregate.defined()) {
    moe_.Route(weights.pregate, normalized, tokens.count(), next_routing_);
  }
  if (routing != nullptr) {
    const auto* ids = static_cast<const uint32_t*>(routing_.expert_ids.const_data_ptr());
    routing->expert_ids.insert(
        routing->expert_ids.end(), ids, ids + tokens.count() * config_.num_experts_per_token);
  }
  PREGATE_RETURN_IF_ERROR(
      moe_.Run(layer, weights.experts, routing_, normalized, tokens.count(), residual));
  if (weights.pregate.defined()) std::swap(routing_, next_routing_);
  return absl::OkStatus();
}

absl::Span<const float> Transformer::ComputeLogits(absl::Span<const uint32_t> logit_tokens) {
  const auto count = static_cast<int64_t>(logit_tokens.size());
  if (count > logits_.size(0)) logits_ = EmptyTensor({count, config_.vocab_size}, at::kFloat);
  auto* normalized = normalized_.mutable_data_ptr<float>();
  Gather(options_.cpu,
         {.table = residual_.const_data_ptr(),
          .dtype = Dtype::kFloat32,
          .rows = logit_tokens.data(),
          .out = normalized,
          .num_rows = count,
          .width = config_.hidden_size});
  Normalize(weights_.final_norm, normalized, count, normalized);
  auto* logits = logits_.mutable_data_ptr<float>();
  product_.Run(normalized, count, weights_.head, logits);
  return absl::MakeConstSpan(logits, logit_tokens.size() * config_.vocab_size);
}

absl::StatusOr<absl::Span<const float>> Transformer::Forward(const ForwardBatch& batch,
                                                             Routing* routing) {
  PREGATE_RETURN_IF_ERROR(Unpack(batch));
  const StepTokens tokens = {.positions = positions_, .places = places_};
  if (routing != nullptr) {
    *routing = {.num_layers = config_.num_layers,
                .num_tokens = static_cast<uint32_t>(token_ids_.size()),
                .experts_per_token = config_.num_experts_per_token,
                .expert_ids = {}};
  }
  Gather(options_.cpu,
         {.table = weights_.embedding.const_data_ptr(),
          .dtype = options_.dtype,
          .rows = token_ids_.data(),
          .out = residual_.mutable_data_ptr<float>(),
          .num_rows = tokens.count(),
          .width = config_.hidden_size});
  for (uint32_t layer = 0; layer < config_.num_layers; ++layer) {
    PREGATE_RETURN_IF_ERROR(RunLayer(layer, tokens, routing));
  }
  return ComputeLogits(batch.logit_tokens);
}

}  // namespace pregate
