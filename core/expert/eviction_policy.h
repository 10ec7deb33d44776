// Which resident expert is worth least. One file per policy, eviction_NAME.cc; docs/extending.md
// shows how to add one.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace pregate {

// Experts are flat numbers, layer · num_experts + expert. Used by one thread at a time (under its
// cache's lock), so every call is short; none allocates.
class EvictionPolicy {
 public:
  virtual ~EvictionPolicy() = default;

  virtual absl::string_view name() const = 0;

  // The distinct experts that a step needs of `layer`, resident or not, before any of them is
  // inserted. Layers come in ascending order within a step; one that is not above the last begins
  // the next step.
  virtual void OnLookup(uint32_t layer, absl::Span<const uint32_t> experts) = 0;

  // `expert` has become resident, by need or ahead of it.
  virtual void OnInsert(uint32_t expert) = 0;

  // worth[i] of candidates[i]; the least is evicted first, of equals the lowest number. Experts
  // that are not resident have a worth too: what it would be with them here.
  virtual void Rank(absl::Span<const uint32_t> candidates, absl::Span<float> worth) const = 0;

  // Is worth an estimate of uses per step? Then a prefetch that is expected with a lower
  // probability than its victim's worth is not made.
  virtual bool ranks_by_use() const { return false; }
};

struct EvictionShape {
  uint32_t num_layers = 0;
  uint32_t num_experts = 0;  // in each layer
};

// "ewma", "lfru", "lru", "lfu", "fifo": the values of --eviction.
std::vector<std::string> EvictionPolicyNames();

// INVALID_ARGUMENT names what there is.
absl::StatusOr<std::unique_ptr<EvictionPolicy>> MakeEvictionPolicy(absl::string_view name,
                                                                   const EvictionShape& shape);

}  // namespace pregate
