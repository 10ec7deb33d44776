#include "core/model/moe_layer.h"

#include <algorithm>
#include <utility>

#include "core/base/status_macros.h"

namespace pregate {

MoeLayer::MoeLayer(const ModelConfig& config,
                   ModelCompute& compute,
                   ExpertRecords records,
                   uint32_t max_tokens)
    : config_(config),
      compute_(compute),
      records_(std::move(records)),
      first_row_(config.num_experts + 1),
      places_(size_t{max_tokens} * config.num_experts_per_token),
      rows_(places_.size()),
      lookups_(config.num_experts),
      encodings_(config.num_experts) {
  ids_.reserve(config.num_experts);
  ready_.reserve(config.num_experts);
}

uint64_t MoeLayer::workspace_bytes() const {
  return (first_row_.size() + places_.size() + rows_.size()) * sizeof(uint32_t);
}

void MoeLayer::GroupByExpert(absl::Span<const uint32_t> expert_ids) {
  // A counting sort, stable: first_row_[e + 1] becomes the next free row of expert e, and so the
  // first row of expert e + 1 at the end.
  std::fill(first_row_.begin(), first_row_.end(), 0);
  for (const uint32_t expert : expert_ids) ++first_row_[expert + 1];
  uint32_t row = 0;
  for (uint32_t expert = 0; expert < config_.num_experts; ++expert) {
    const uint32_t count = first_row_[expert + 1];
    first_row_[expert + 1] = row;
    row += count;
  }
  for (uint32_t place = 0; place < expert_ids.size(); ++place) {
    rows_[place] = first_row_[expert_ids[place] + 1]++;
    places_[rows_[place]] = place;
  }
}

void MoeLayer::Sort(absl::Span<const ExpertLease::Expert> group) {
  ready_.clear();
  for (const ExpertLease::Expert& expert : group) {
    const ExpertId& id = ids_[expert.index];
    encodings_[id.expert] = expert.encoding;
    absl::Status status = expert.status;
    if (status.ok()) status = records_.offload->Verify(id, expert, compute_.stream());
    if (status.ok()) {
      ready_.push_back({.expert = id.expert, .encoding = expert.encoding, .record = expert.record});
    } else {
      failures_.push_back({.expert = id.expert, .status = absl::InternalError(status.message())});
      missing_.push_back(id.expert);
    }
  }
}

absl::Status MoeLayer::Run(const RoutedLayer& routed) {
  GroupByExpert(routed.expert_ids);
  ids_.clear();
  for (uint32_t expert = 0; expert < config_.num_experts; ++expert) {
    if (first_row_[expert] == first_row_[expert + 1]) continue;
    ids_.push_back({.layer = routed.layer, .expert = expert});
  }
  // What is needed now is asked for before what may be needed next. That is thought about while a
  // device is at work, if there is something that it can begin with.
  PREGATE_ASSIGN_OR_RETURN(ExpertLease lease, records_.offload->Acquire(ids_, compute_.stream()));
  bool has_hit = false;
  for (size_t i = 0; i < ids_.size(); ++i) {
    lookups_[ids_[i].expert] = lease.lookups()[i];
    has_hit = has_hit || lease.lookups()[i] == Lookup::kHit;
  }
  bool is_to_predict = compute_.is_asynchronous() && has_hit;
  if (!is_to_predict) records_.offload->OnRouted(routed);

  const size_t num_rows = routed.expert_ids.size();
  PREGATE_RETURN_IF_ERROR(
      compute_.BeginExperts({.first = first_row_,
                             .places = absl::MakeConstSpan(places_).first(num_rows),
                             .rows = absl::MakeConstSpan(rows_).first(num_rows)}));
  failures_.clear();
  missing_.clear();
  const size_t most = compute_.is_asynchronous() ? ids_.size() : 1;
  for (;;) {
    const absl::Span<const ExpertLease::Expert> group = lease.NextGroup(most);
    if (group.empty()) break;
    Sort(group);
    const TimePoint start = clock_.Now();
    PREGATE_RETURN_IF_ERROR(compute_.RunExperts(ready_));
    compute_time_ += clock_.Now() - start;
    if (std::exchange(is_to_predict, false)) records_.offload->OnRouted(routed);
  }
  stall_ = lease.stall();
  return compute_.EndExperts(missing_);
}

}  // namespace pregate
