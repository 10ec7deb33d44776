#include "core/expert/replay.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "core/base/check.h"
#include "core/expert/prediction_list.h"

namespace pregate {

TraceSteps::TraceSteps(const RoutingTrace& trace, uint32_t num_streams) : trace_(trace) {
  PREGATE_CHECK(num_streams > 0);
  while (sequences_.size() < num_streams) {
    sequences_.push_back(0);
    tokens_.push_back(0);
    if (TakeSequence(sequences_.size() - 1)) continue;
    sequences_.pop_back();
    tokens_.pop_back();
    return;
  }
}

bool TraceSteps::TakeSequence(size_t row) {
  while (next_ < trace_.sequences.size()) {
    const RoutingTrace::Sequence& sequence = trace_.sequences[next_];
    sequences_[row] = next_++;
    tokens_[row] = sequence.num_prompt_tokens;
    if (tokens_[row] < trace_.num_tokens(sequence)) return true;
  }
  return false;
}

bool TraceSteps::Next() {
  if (sequences_.empty()) return false;
  if (!std::exchange(has_begun_, true)) return true;
  for (size_t row = 0; row < sequences_.size(); ++row) {
    if (++tokens_[row] < trace_.num_tokens(trace_.sequences[sequences_[row]])) continue;
    if (!TakeSequence(row)) {
      sequences_.clear();
      return false;
    }
  }
  return true;
}

absl::Span<const uint32_t> TraceSteps::ExpertsOf(uint32_t layer) {
  expert_ids_.clear();
  for (size_t row = 0; row < sequences_.size(); ++row) {
    const absl::Span<const uint16_t> chosen =
        trace_.ExpertsOf(trace_.sequences[sequences_[row]], tokens_[row], layer);
    expert_ids_.insert(expert_ids_.end(), chosen.begin(), chosen.end());
  }
  return expert_ids_;
}

TraceLookups::TraceLookups(const RoutingTrace& trace, uint32_t num_streams)
    : shape_{.num_layers = trace.num_layers, .num_experts = trace.num_experts} {
  std::vector<size_t> seen(trace.num_experts);  // the last look-up of each
  for (TraceSteps steps(trace, num_streams); steps.Next();) {
    for (uint32_t layer = 0; layer < trace.num_layers; ++layer) {
      const size_t lookup = ends_.size() + 1;
      for (const uint32_t expert : steps.ExpertsOf(layer)) {
        if (std::exchange(seen[expert], lookup) == lookup) continue;
        experts_.push_back(layer * trace.num_experts + expert);
      }
      ends_.push_back(experts_.size());
    }
  }
}

namespace {

constexpr uint32_t kNone = UINT32_MAX;

// The slots of a replay: which experts are there, and nothing else of them.
class ReplaySlots {
 public:
  ReplaySlots(const EvictionShape& shape, uint32_t num_slots, EvictionPolicy& policy)
      : num_slots_(num_slots),
        policy_(policy),
        slot_of_(size_t{shape.num_layers} * shape.num_experts, kNone),
        awaits_use_(slot_of_.size()) {
    residents_.reserve(num_slots);
    worth_.resize(num_slots);
  }

  void LookUp(uint32_t layer, absl::Span<const uint32_t> experts) {
    missing_.clear();
    for (const uint32_t expert : experts) {
      if (slot_of_[expert] == kNone) missing_.emplace_back(expert, 1);
      if (std::exchange(awaits_use_[expert], false)) ++result_.useful;
    }
    policy_.OnLookup(layer, experts);
    result_.lookups += experts.size();
    result_.hits += experts.size() - missing_.size();
    if (missing_.empty()) return;
    if (missing_.size() > num_free()) FindVictims(missing_.size() - num_free(), experts, {});
    size_t next_victim = 0;
    for (const auto& [expert, probability] : missing_) {
      if (num_free() > 0) {
        Insert(expert, nullptr);
      } else if (next_victim < victims_.size()) {
        Insert(expert, &victims_[next_victim++]);
      }
    }
  }

  // Inserts those of `predicted` (with how probable it is) that are not there, the first first, at
  // most `max_loads`. None of them nor of `needed` is a victim.
  void Prefetch(absl::Span<const std::pair<uint32_t, float>> predicted,
                absl::Span<const uint32_t> needed,
                uint32_t max_loads) {
    missing_.clear();
    expected_.clear();
    for (const auto& [expert, probability] : predicted) {
      expected_.push_back(expert);
      if (slot_of_[expert] == kNone) missing_.emplace_back(expert, probability);
    }
    missing_.resize(std::min<size_t>(missing_.size(), max_loads));
    if (missing_.size() > num_free()) {
      FindVictims(missing_.size() - num_free(), needed, expected_);
      std::sort(victims_.begin(), victims_.end());
    }
    size_t next_victim = 0;
    for (const auto& [expert, probability] : missing_) {
      const Victim* victim = nullptr;
      if (num_free() == 0) {
        if (next_victim == victims_.size()) return;
        victim = &victims_[next_victim];
        if (policy_.ranks_by_use() && victim->worth >= probability) continue;
        ++next_victim;
      }
      Insert(expert, victim);
      ++result_.prefetched;
      awaits_use_[expert] = true;
    }
  }

  const ReplayResult& result() const { return result_; }

 private:
  struct Victim {
    float worth = 0;
    uint32_t expert = 0;
    uint32_t slot = 0;
    friend bool operator<(const Victim& a, const Victim& b) {
      return a.worth < b.worth || (a.worth == b.worth && a.expert < b.expert);
    }
  };

  size_t num_free() const { return num_slots_ - residents_.size(); }

  // Into a free slot, or the victim's.
  void Insert(uint32_t expert, const Victim* victim) {
    if (victim == nullptr) {
      slot_of_[expert] = static_cast<uint32_t>(residents_.size());
      residents_.push_back(expert);
    } else {
      slot_of_[victim->expert] = kNone;
      if (std::exchange(awaits_use_[victim->expert], false)) ++result_.wasted;
      slot_of_[expert] = victim->slot;
      residents_[victim->slot] = expert;
    }
    policy_.OnInsert(expert);
  }

  // The `count` slots that are worth least, but for those of `needed` and `expected`; of equals
  // those of the lowest experts. Fewer when there are no more.
  void FindVictims(size_t count,
                   absl::Span<const uint32_t> needed,
                   absl::Span<const uint32_t> expected) {
    policy_.Rank(residents_, absl::MakeSpan(worth_.data(), residents_.size()));
    for (const absl::Span<const uint32_t> kept : {needed, expected}) {
      for (const uint32_t expert : kept) {
        if (slot_of_[expert] != kNone) worth_[slot_of_[expert]] = kProtected;
      }
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

  static constexpr float kProtected = std::numeric_limits<float>::infinity();

  const uint32_t num_slots_;
  EvictionPolicy& policy_;
  ReplayResult result_;
  std::vector<uint32_t> slot_of_;                    // [experts]
  std::vector<uint8_t> awaits_use_;                  // [experts]: prefetched, and not needed yet
  std::vector<uint32_t> residents_;                  // by slot
  std::vector<std::pair<uint32_t, float>> missing_;  // to be inserted, by how probable it is needed
  std::vector<uint32_t> expected_;
  std::vector<float> worth_;     // by slot
  std::vector<Victim> victims_;  // a heap, the one worth most in front
};

RoutedLayer RoutedBy(TraceSteps& steps, uint32_t layer) {
  const absl::Span<const uint32_t> expert_ids = steps.ExpertsOf(layer);
  const auto num_tokens = static_cast<uint32_t>(steps.sequences().size());
  return {.layer = layer,
          .num_tokens = num_tokens,
          .experts_per_token = static_cast<uint32_t>(expert_ids.size()) / num_tokens,
          .expert_ids = expert_ids,
          .sequences = steps.sequences(),
          .positions = steps.positions(),
          .next_expert_ids = {}};
}

}  // namespace

ReplayResult Replay(const TraceLookups& lookups, EvictionPolicy& policy, uint32_t num_slots) {
  PREGATE_CHECK(num_slots > 0);
  ReplaySlots slots(lookups.shape(), num_slots, policy);
  for (size_t i = 0; i < lookups.size(); ++i) slots.LookUp(lookups.layer(i), lookups.experts(i));
  return slots.result();
}

ReplayResult Replay(const TraceLookups& lookups,
                    EvictionPolicy& policy,
                    uint32_t num_slots,
                    TraceSteps steps,
                    ExpertPredictor& predictor,
                    const PrefetchOptions& options) {
  PREGATE_CHECK(num_slots > 0);
  const EvictionShape shape = lookups.shape();
  ReplaySlots slots(shape, num_slots, policy);
  std::vector<ExpertPrediction> predictions;
  std::vector<std::pair<uint32_t, float>> predicted;  // flat numbers
  for (size_t i = 0; i < lookups.size(); ++i) {
    const uint32_t layer = lookups.layer(i);
    if (layer == 0) PREGATE_CHECK(steps.Next());
    slots.LookUp(layer, lookups.experts(i));
    predictor.Observe(RoutedBy(steps, layer));
    predicted.clear();
    const uint32_t last = std::min(layer + options.lookahead, shape.num_layers - 1);
    for (uint32_t ahead = layer + 1; ahead <= last; ++ahead) {
      predictor.Predict(ahead - layer, predictions);
      predictions.resize(CountToActOn(predictions, options.aggressiveness, options.confidence));
      for (const ExpertPrediction& prediction : predictions) {
        predicted.emplace_back(ahead * shape.num_experts + prediction.expert,
                               prediction.probability);
      }
    }
    slots.Prefetch(predicted, lookups.experts(i), options.max_loads);
  }
  return slots.result();
}

}  // namespace pregate
