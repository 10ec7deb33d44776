#include "core/expert/replay.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "core/base/check.h"

namespace pregate {

TraceLookups::TraceLookups(const RoutingTrace& trace, uint32_t num_streams)
    : shape_{.num_layers = trace.num_layers, .num_experts = trace.num_experts},
      seen_(trace.num_experts) {
  PREGATE_CHECK(num_streams > 0);
  // Of each stream its sequence and its next token.
  std::vector<std::pair<size_t, uint32_t>> streams;
  size_t next = 0;
  const auto take_next = [&](std::pair<size_t, uint32_t>& stream) {
    while (next < trace.sequences.size()) {
      const RoutingTrace::Sequence& sequence = trace.sequences[next];
      stream = {next++, sequence.num_prompt_tokens};
      if (stream.second < trace.num_tokens(sequence)) return true;
    }
    return false;
  };
  for (std::pair<size_t, uint32_t> stream; streams.size() < num_streams && take_next(stream);) {
    streams.push_back(stream);
  }
  bool all_play = !streams.empty();
  while (all_play) {
    AddStep(trace, streams);
    for (auto& stream : streams) {
      const bool has_ended = ++stream.second == trace.num_tokens(trace.sequences[stream.first]);
      if (has_ended && !take_next(stream)) all_play = false;
    }
  }
}

void TraceLookups::AddStep(const RoutingTrace& trace,
                           absl::Span<const std::pair<size_t, uint32_t>> streams) {
  for (uint32_t layer = 0; layer < trace.num_layers; ++layer) {
    ++mark_;
    for (const auto& [sequence, token] : streams) {
      for (const uint16_t expert : trace.ExpertsOf(trace.sequences[sequence], token, layer)) {
        if (std::exchange(seen_[expert], mark_) == mark_) continue;
        experts_.push_back(layer * trace.num_experts + expert);
      }
    }
    ends_.push_back(experts_.size());
  }
}

namespace {

constexpr uint32_t kNone = UINT32_MAX;

// The slots of a replay: which experts are there, and nothing else of them.
class ReplaySlots {
 public:
  ReplaySlots(const EvictionShape& shape, uint32_t num_slots)
      : num_slots_(num_slots), slot_of_(size_t{shape.num_layers} * shape.num_experts, kNone) {
    residents_.reserve(num_slots);
    worth_.resize(num_slots);
  }

  // Returns how many of `experts` were there.
  uint32_t LookUp(uint32_t layer, absl::Span<const uint32_t> experts, EvictionPolicy& policy) {
    missing_.clear();
    for (const uint32_t expert : experts) {
      if (slot_of_[expert] == kNone) missing_.push_back(expert);
    }
    policy.OnLookup(layer, experts);
    if (!missing_.empty()) Insert(experts, policy);
    return static_cast<uint32_t>(experts.size() - missing_.size());
  }

 private:
  void Insert(absl::Span<const uint32_t> experts, EvictionPolicy& policy) {
    const size_t free = num_slots_ - residents_.size();
    if (missing_.size() > free) FindVictims(missing_.size() - free, experts, policy);
    size_t next_victim = 0;
    for (const uint32_t expert : missing_) {
      if (residents_.size() < num_slots_) {
        slot_of_[expert] = static_cast<uint32_t>(residents_.size());
        residents_.push_back(expert);
      } else {
        if (next_victim == victims_.size()) return;
        const uint32_t slot = victims_[next_victim++].slot;
        slot_of_[residents_[slot]] = kNone;
        residents_[slot] = expert;
        slot_of_[expert] = slot;
      }
      policy.OnInsert(expert);
    }
  }

  // The `count` slots that are worth least, but for those of `experts`; of equals those of the
  // lowest experts. Fewer when there are no more.
  void FindVictims(size_t count, absl::Span<const uint32_t> experts, const EvictionPolicy& policy) {
    policy.Rank(residents_, absl::MakeSpan(worth_.data(), residents_.size()));
    for (const uint32_t expert : experts) {
      if (slot_of_[expert] != kNone) worth_[slot_of_[expert]] = kProtected;
    }
    victims_.clear();
    float limit = kProtected;  // what is worth more is no victim
    for (uint32_t slot = 0; slot < residents_.size(); ++slot) {
      if (worth_[slot] > limit || worth_[slot] == kProtected) continue;
      const Victim victim = {worth_[slot], residents_[slot], slot};
      if (victims_.size() == count) {
        if (victims_.front() < victim) continue;
        std::pop_heap(victims_.begin(), victims_.end());
        victims_.pop_back();
      }
      victims_.push_back(victim);
      std::push_heap(victims_.begin(), victims_.end());
      if (victims_.size() == count) limit = victims_.front().worth;
    }
  }

  struct Victim {
    float worth = 0;
    uint32_t expert = 0;
    uint32_t slot = 0;
    friend bool operator<(const Victim& a, const Victim& b) {
      return a.worth < b.worth || (a.worth == b.worth && a.expert < b.expert);
    }
  };

  static constexpr float kProtected = std::numeric_limits<float>::infinity();

  const uint32_t num_slots_;
  std::vector<uint32_t> slot_of_;    // [experts]
  std::vector<uint32_t> residents_;  // by slot
  std::vector<uint32_t> missing_;
  std::vector<float> worth_;     // by slot
  std::vector<Victim> victims_;  // a heap, the one worth most in front
};

}  // namespace

ReplayResult Replay(const TraceLookups& lookups, EvictionPolicy& policy, uint32_t num_slots) {
  PREGATE_CHECK(num_slots > 0);
  ReplaySlots slots(lookups.shape(), num_slots);
  ReplayResult result = {.lookups = lookups.num_experts()};
  for (size_t i = 0; i < lookups.size(); ++i) {
    result.hits += slots.LookUp(lookups.layer(i), lookups.experts(i), policy);
  }
  return result;
}

}  // namespace pregate
