// The optimum that no server can have: it knows what will be needed.
#pragma once

#include <cstdint>
#include <limits>
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
  static constexpr uint32_t kNever = std::numeric_limits<uint32_t>::max();

  std::vector<uint32_t> uses_;      // expert by expert: its look-ups, ascending, then kNever
  std::vector<size_t> next_;        // [experts]: in uses_, the first that is not over
  std::vector<uint32_t> next_use_;  // [experts]: uses_ at next_
  uint32_t lookups_ = 0;            // so far
};

}  // namespace pregate
