#include "core/expert/eviction_belady.h"

namespace pregate {

BeladyEviction::BeladyEviction(const std::vector<std::vector<uint32_t>>& lookups,
                               const EvictionShape& shape)
    : next_(size_t{shape.num_layers} * shape.num_experts), next_use_(next_.size()) {
  std::vector<size_t> counts(next_.size());
  for (const std::vector<uint32_t>& experts : lookups) {
    for (const uint32_t expert : experts) ++counts[expert];
  }
  size_t size = 0;
  for (size_t expert = 0; expert < next_.size(); ++expert) {
    next_[expert] = size;
    size += counts[expert] + 1;
  }
  uses_.resize(size, kNever);
  std::vector<size_t> ends = next_;
  for (uint32_t i = 0; i < lookups.size(); ++i) {
    for (const uint32_t expert : lookups[i]) uses_[ends[expert]++] = i;
  }
  for (size_t expert = 0; expert < next_.size(); ++expert) next_use_[expert] = uses_[next_[expert]];
}

void BeladyEviction::OnLookup(uint32_t, absl::Span<const uint32_t> experts) {
  ++lookups_;
  for (const uint32_t expert : experts) {
    if (next_use_[expert] != kNever) next_use_[expert] = uses_[++next_[expert]];
  }
}

void BeladyEviction::Rank(absl::Span<const uint32_t> candidates, absl::Span<float> worth) const {
  // As a distance, since floats count to 2^24 only.
  for (size_t i = 0; i < candidates.size(); ++i) {
    worth[i] = -static_cast<float>(next_use_[candidates[i]] - lookups_);
  }
}

}  // namespace pregate
