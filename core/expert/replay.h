// A routing trace played through an eviction policy, without a model: what would have been hit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "core/expert/eviction_policy.h"
#include "core/expert/routing_trace.h"

namespace pregate {

// The look-ups of a trace's generated tokens in their order: in each step every stream's next
// token, layer by layer the distinct experts of all streams. Streams are sequences side by side; a
// finished one is replaced by the next of the trace, until none is left to take its place. One
// stream plays the sequences one after another. Immutable: thread-safe.
class TraceLookups {
 public:
  // `num_streams` ≥ 1; of a trace with fewer sequences all are played side by side.
  TraceLookups(const RoutingTrace& trace, uint32_t num_streams);

  EvictionShape shape() const { return shape_; }
  size_t size() const { return ends_.size(); }
  uint32_t layer(size_t lookup) const { return static_cast<uint32_t>(lookup % shape_.num_layers); }
  // As flat numbers, layer · num_experts + expert.
  absl::Span<const uint32_t> experts(size_t lookup) const {
    const size_t begin = lookup == 0 ? 0 : ends_[lookup - 1];
    return absl::MakeConstSpan(experts_).subspan(begin, ends_[lookup] - begin);
  }
  uint64_t num_experts() const { return experts_.size(); }  // of all look-ups together

 private:
  void AddStep(const RoutingTrace& trace, absl::Span<const std::pair<size_t, uint32_t>> streams);

  EvictionShape shape_;
  std::vector<uint32_t> experts_;
  std::vector<size_t> ends_;    // of each look-up in experts_
  std::vector<uint32_t> seen_;  // [num_experts]: scratch of the constructor
  uint32_t mark_ = 0;
};

struct ReplayResult {
  uint64_t lookups = 0;  // of single experts
  uint64_t hits = 0;
  uint64_t misses() const { return lookups - hits; }
  double hit_rate() const {
    return lookups == 0 ? 0 : static_cast<double>(hits) / static_cast<double>(lookups);
  }
};

// Plays `lookups` through a cache of `num_slots` (≥ 1) that begins empty. A look-up is atomic: all
// its experts are looked up before any is inserted, and none of them is its victim; what then finds
// no slot is not kept. `policy` is new.
ReplayResult Replay(const TraceLookups& lookups, EvictionPolicy& policy, uint32_t num_slots);

}  // namespace pregate
