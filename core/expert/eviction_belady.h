// The optimum that no server can have: it knows what will be needed.
#pragma once

#include <cstdint>
#include <vector>

#include "core/expert/eviction_policy.h"

namespace pregate {

// Belady's MIN (IBM Systems Journal 5(2), 1966): the expert that is needed last, or never again,
// leaves first. For replays and as a control in benches.
class BeladyEviction final : public EvictionPolicy {
 public:
  // `lookups`: the experts of every OnLookup to come, in order. OnLookup must be called with just
  // these.
  BeladyEviction(const std::vector<std::vector<uint32_t>>& lookups, const EvictionShape& shape);

  absl::string_view name() const override { return "belady"; }
  void OnLookup(uint32_t layer, absl::Span<const uint32_t> experts) override;
  void OnInsert(uint32_t) override {}
  void Rank(absl::Span<const uint32_t> candidates, absl::Span<float> worth) const override;

 private:
  // The next look-up that needs the expert, from the present one on.
  uint32_t NextUse(uint32_t expert) const;

  std::vector<std::vector<uint32_t>> uses_;  // [experts]: numbers of the look-ups, ascending
  std::vector<uint32_t> passed_;             // [experts]: of its uses, how many are over
  uint32_t lookups_ = 0;                     // so far
};

}  // namespace pregate
