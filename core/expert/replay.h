// A routing trace played through an eviction policy and a predictor, without a model: what would
// have been hit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "core/expert/eviction_policy.h"
#include "core/expert/expert_predictor.h"
#include "core/expert/routing_trace.h"

namespace pregate {

// A trace's generated tokens step by step: in each, every stream's next one. Streams are sequences
// side by side; a finished one is replaced by the next of the trace, until none is left to take its
// place. One stream plays the sequences one after another.
class TraceSteps {
 public:
  // `num_streams` ≥ 1; of a trace with fewer sequences all are played side by side. The trace
  // outlives this.
  TraceSteps(const RoutingTrace& trace, uint32_t num_streams);

  // Begins the first step, then the one after it; false when there is none.
  bool Next();

  // Of the present step, which row by row belongs to which sequence, by its place in the trace.
  absl::Span<const uint64_t> sequences() const { return sequences_; }
  // Of each row's token in its sequence.
  absl::Span<const uint32_t> positions() const { return tokens_; }
  // What the rows chose at `layer`, [rows, experts_per_token] in numbers of the layer; valid until
  // the next call.
  absl::Span<const uint32_t> ExpertsOf(uint32_t layer);

 private:
  // Gives the row the next sequence that has tokens to play.
  bool TakeSequence(size_t row);

  const RoutingTrace& trace_;
  size_t next_ = 0;                  // sequence that nobody plays yet
  std::vector<uint64_t> sequences_;  // by row
  std::vector<uint32_t> tokens_;     // by row
  std::vector<uint32_t> expert_ids_;
  bool has_begun_ = false;
};

// The look-ups of these steps in their order: layer by layer the distinct experts of all streams.
// Immutable: thread-safe.
class TraceLookups {
 public:
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
  EvictionShape shape_;
  std::vector<uint32_t> experts_;
  std::vector<size_t> ends_;  // of each look-up in experts_
};

struct ReplayResult {
  uint64_t lookups = 0;  // of single experts
  uint64_t hits = 0;
  uint64_t prefetched = 0;  // experts that came because they were predicted
  uint64_t useful = 0;      // of them, needed before they were evicted
  uint64_t wasted = 0;      // of them, evicted first; the rest waits at the end
  uint64_t misses() const { return lookups - hits; }
  // Shares; 0 of nothing.
  double hit_rate() const { return Share(hits, lookups); }
  double useful_share() const { return Share(useful, prefetched); }
  double wasted_share() const { return Share(wasted, prefetched); }

 private:
  static double Share(uint64_t part, uint64_t whole) {
    return whole == 0 ? 0 : static_cast<double>(part) / static_cast<double>(whole);
  }
};

// Plays `lookups` through a cache of `num_slots` (≥ 1) that begins empty. A look-up is atomic: all
// its experts are looked up before any is inserted, and none of them is its victim; what then finds
// no slot is not kept. `policy` is new.
ReplayResult Replay(const TraceLookups& lookups, EvictionPolicy& policy, uint32_t num_slots);

struct PrefetchOptions {
  uint32_t lookahead = 1;       // layers
  double aggressiveness = 0.7;  // as --speculation-aggressiveness
  double confidence = 0;        // as --speculation-confidence
  uint32_t max_loads = 8;       // in the time of one layer
};

// The same, and behind each look-up `predictor` says what the next layers of the step will need:
// what is not there is inserted, nearer layers first, and is there in time. Victims are neither
// needed by the look-up nor predicted nor, where the policy ranks by use, worth as much as the
// prediction is probable. `steps` are those that the look-ups were made of; `predictor` is new.
ReplayResult Replay(const TraceLookups& lookups,
                    EvictionPolicy& policy,
                    uint32_t num_slots,
                    TraceSteps steps,
                    ExpertPredictor& predictor,
                    const PrefetchOptions& options);

}  // namespace pregate
