#include "core/expert/eviction_belady.h"

#include <limits>

namespace pregate {

BeladyEviction::BeladyEviction(const std::vector<std::vector<uint32_t>>& lookups,
                               const EvictionShape& shape)
    : uses_(size_t{shape.num_layers} * shape.num_experts), passed_(uses_.size()) {
  for (uint32_t i = 0; i < lookups.size(); ++i) {
    for (const uint32_t expert : lookups[i]) uses_[expert].push_back(i);
  }
}

void BeladyEviction::OnLookup(uint32_t, absl::Span<const uint32_t> experts) {
  ++lookups_;
  for (const uint32_t expert : experts) ++passed_[expert];
}

uint32_t BeladyEviction::NextUse(uint32_t expert) const {
  return passed_[expert] < uses_[expert].size() ? uses_[expert][passed_[expert]]
                                                : std::numeric_limits<uint32_t>::max();
}

void BeladyEviction::Rank(absl::Span<const uint32_t> candidates, absl::Span<float> worth) const {
  // As a distance, since floats count to 2^24 only.
  for (size_t i = 0; i < candidates.size(); ++i) {
    worth[i] = -static_cast<float>(NextUse(candidates[i]) - lookups_);
  }
}

}  // namespace pregate
