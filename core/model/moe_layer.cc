#include "core/model/moe_layer.h"

#include <optional>
#include <utility>

#include "core/base/status_macros.h"
#include "core/kernel/router.h"
#include "core/kernel/rows.h"

namespace pregate {

MoeLayer::MoeLayer(const ModelConfig& config,
                   const CpuContext& cpu,
                   Product& product,
                   ExpertRecords records,
                   int64_t max_tokens)
    : config_(config),
      cpu_(cpu),
      records_(std::move(records)),
      network_(config, cpu, product, max_tokens),
      lookups_(config.num_experts),
      encodings_(config.num_experts),
      logits_(EmptyTensor({max_tokens, config.num_experts}, at::kFloat)) {
  const int64_t max_rows = max_tokens * config.num_experts_per_token;
  first_row_.resize(config.num_experts + 1);
  ids_.reserve(config.num_experts);
  source_tokens_.resize(static_cast<size_t>(max_rows));
  rows_.resize(static_cast<size_t>(max_rows));
  in_ = EmptyTensor({max_rows, config.hidden_size}, at::kFloat);
  out_ = EmptyTensor({max_rows, config.hidden_size}, at::kFloat);
}

RoutedTokens MoeLayer::MakeRouting() const {
  const int64_t max_tokens = logits_.size(0);
  return {.expert_ids = EmptyTensor({max_tokens, config_.num_experts_per_token}, at::kInt),
          .weights = EmptyTensor({max_tokens, config_.num_experts_per_token}, at::kFloat)};
}

uint64_t MoeLayer::workspace_bytes() const {
  uint64_t bytes = (first_row_.size() + source_tokens_.size() + rows_.size()) * sizeof(uint32_t) +
                   network_.workspace_bytes();
  for (const at::Tensor* tensor : {&logits_, &in_, &out_}) {
    bytes += tensor->nbytes();
  }
  return bytes;
}

void MoeLayer::Route(const at::Tensor& gate,
                     const float* x,
                     int64_t num_tokens,
                     RoutedTokens& routing) {
  pregate::Route(cpu_,
                 {.x = x,
                  .gate = gate.const_data_ptr<float>(),
                  .logits = logits_.mutable_data_ptr<float>(),
                  .expert_ids = static_cast<uint32_t*>(routing.expert_ids.mutable_data_ptr()),
                  .weights = routing.weights.mutable_data_ptr<float>(),
                  .num_tokens = num_tokens,
                  .width = config_.hidden_size,
                  .num_experts = config_.num_experts,
                  .num_chosen = config_.num_experts_per_token,
                  .renormalize = config_.renormalize_weights});
}

void MoeLayer::GroupByExpert(const RoutedTokens& routing, int64_t num_tokens) {
  const auto* ids = static_cast<const uint32_t*>(routing.expert_ids.const_data_ptr());
  const size_t num_rows = static_cast<size_t>(num_tokens) * config_.num_experts_per_token;
  // A counting sort, stable: first_row_[e + 1] becomes the next free row of expert e, and so the
  // first row of expert e + 1 at the end.
  std::fill(first_row_.begin(), first_row_.end(), 0);
  for (size_t i = 0; i < num_rows; ++i) ++first_row_[ids[i] + 1];
  uint32_t row = 0;
  for (uint32_t expert = 0; expert < config_.num_experts; ++expert) {
    const uint32_t count = first_row_[expert + 1];
    first_row_[expert + 1] = row;
    row += count;
  }
  for (size_t i = 0; i < num_rows; ++i) {
    rows_[i] = first_row_[ids[i] + 1]++;
    source_tokens_[rows_[i]] = static_cast<uint32_t>(i / config_.num_experts_per_token);
  }
}

void MoeLayer::RunExpert(const RecordLayout& layout, const std::byte* record, uint32_t expert) {
  const int64_t first_row = first_row_[expert];
  network_.Run(layout,
               record,
               in_.const_data_ptr<float>() + first_row * config_.hidden_size,
               int64_t{first_row_[expert + 1]} - first_row,
               out_.mutable_data_ptr<float>() + first_row * config_.hidden_size);
}

void MoeLayer::ZeroRows(uint32_t expert) {
  auto* out = out_.mutable_data_ptr<float>();
  std::fill(out + int64_t{first_row_[expert]} * config_.hidden_size,
            out + int64_t{first_row_[expert + 1]} * config_.hidden_size,
            0.0f);
}

absl::Status MoeLayer::Run(const RoutedLayer& routed,
                           const RoutedTokens& routing,
                           const float* x,
                           float* residual) {
  const int64_t num_tokens = routed.num_tokens;
  GroupByExpert(routing, num_tokens);
  ids_.clear();
  for (uint32_t expert = 0; expert < config_.num_experts; ++expert) {
    if (first_row_[expert] == first_row_[expert + 1]) continue;
    ids_.push_back({.layer = routed.layer, .expert = expert});
  }
  // What is needed now is asked for before what may be needed next.
  PREGATE_ASSIGN_OR_RETURN(ExpertLease lease, records_.offload->Acquire(ids_, stream_));
  records_.offload->OnRouted(routed);
  for (size_t i = 0; i < ids_.size(); ++i) lookups_[ids_[i].expert] = lease.lookups()[i];

  Gather(cpu_,
         {.table = x,
          .dtype = Dtype::kFloat32,
          .rows = source_tokens_.data(),
          .out = in_.mutable_data_ptr<float>(),
          .num_rows = num_tokens * config_.num_experts_per_token,
          .width = config_.hidden_size});
  failures_.clear();
  while (const std::optional<ExpertLease::Expert> next = lease.Next()) {
    const uint32_t expert = ids_[next->index].expert;
    encodings_[expert] = next->encoding;
    absl::Status status = next->status;
    if (status.ok()) status = records_.offload->Verify(ids_[next->index], *next);
    if (status.ok()) {
      const TimePoint start = clock_.Now();
      RunExpert(records_.layouts[next->encoding], next->record, expert);
      compute_time_ += clock_.Now() - start;
    } else {
      failures_.push_back({.expert = expert, .status = absl::InternalError(status.message())});
    }
  }
  stall_ = lease.stall();
  // Rows that nobody computed must not hold what an earlier step left.
  for (const Failure& failure : failures_) ZeroRows(failure.expert);
  Combine(cpu_,
          {.expert_out = out_.const_data_ptr<float>(),
           .rows = rows_.data(),
           .weights = routing.weights.const_data_ptr<float>(),
           .sum = residual,
           .num_tokens = num_tokens,
           .num_chosen = config_.num_experts_per_token,
           .width = config_.hidden_size});
  return absl::OkStatus();
}

}  // namespace pregate
