// Traces come back as they were and damage is found, and a replay hits just what a plain model of a
// cache hits.
#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "core/expert/eviction_belady.h"
#include "core/expert/replay.h"
#include "core/expert/routing_trace.h"
#include "gtest/gtest.h"
#include "rapidcheck.h"
#include "rapidcheck/gtest.h"

namespace pregate {
namespace {

// Distinct experts for each token, as a router chooses them.
RoutingTrace AnyTrace(uint32_t most_experts) {
  RoutingTrace trace;
  trace.model = *rc::gen::container<std::string>(rc::gen::inRange<char>(0, 127));
  trace.num_layers = *rc::gen::inRange<uint32_t>(1, 5);
  trace.num_experts = *rc::gen::inRange<uint32_t>(1, most_experts + 1);
  trace.experts_per_token = *rc::gen::inRange<uint32_t>(1, std::min(trace.num_experts, 4U) + 1);
  const auto num_sequences = *rc::gen::inRange<uint32_t>(0, 6);
  for (uint32_t i = 0; i < num_sequences; ++i) {
    RoutingTrace::Sequence& sequence = trace.sequences.emplace_back();
    sequence.id = *rc::gen::container<std::string>(rc::gen::inRange<char>(0, 127));
    const auto num_tokens = *rc::gen::inRange<uint32_t>(0, 12);
    sequence.num_prompt_tokens = *rc::gen::inRange<uint32_t>(0, num_tokens + 1);
    for (uint32_t choice = 0; choice < num_tokens * trace.num_layers; ++choice) {
      const auto first = *rc::gen::inRange<uint32_t>(0, trace.num_experts);
      for (uint32_t k = 0; k < trace.experts_per_token; ++k) {
        sequence.expert_ids.push_back(static_cast<uint16_t>((first + k) % trace.num_experts));
      }
    }
  }
  return trace;
}

void AssertSame(const RoutingTrace& a, const RoutingTrace& b) {
  RC_ASSERT(a.model == b.model);
  RC_ASSERT(a.num_layers == b.num_layers);
  RC_ASSERT(a.num_experts == b.num_experts);
  RC_ASSERT(a.experts_per_token == b.experts_per_token);
  RC_ASSERT(a.sequences.size() == b.sequences.size());
  for (size_t i = 0; i < a.sequences.size(); ++i) {
    RC_ASSERT(a.sequences[i].id == b.sequences[i].id);
    RC_ASSERT(a.sequences[i].num_prompt_tokens == b.sequences[i].num_prompt_tokens);
    RC_ASSERT(a.sequences[i].expert_ids == b.sequences[i].expert_ids);
  }
}

RC_GTEST_PROP(RoutingTraceProperty, ComesBackAsItWas, ()) {
  const RoutingTrace trace = AnyTrace(*rc::gen::element(4U, 256U, 257U, 65536U));
  const absl::StatusOr<RoutingTrace> read = ParseRoutingTrace(SerializeRoutingTrace(trace));
  RC_ASSERT(read.ok());
  AssertSame(*read, trace);
}

RC_GTEST_PROP(RoutingTraceProperty, NoChangedByteGoesUnnoticed, ()) {
  std::string bytes = SerializeRoutingTrace(AnyTrace(300));
  const auto at = *rc::gen::inRange<size_t>(0, bytes.size());
  bytes[at] = static_cast<char>(bytes[at] ^ *rc::gen::inRange(1, 256));
  RC_ASSERT(ParseRoutingTrace(bytes).status().code() == absl::StatusCode::kInvalidArgument);
}

// The look-ups of each step, stream by stream, as the words of the documentation have it.
std::vector<std::set<uint32_t>> PlainLookups(const RoutingTrace& trace, uint32_t num_streams) {
  std::vector<std::vector<std::set<uint32_t>>> waiting;  // [sequence][token · layers + layer]
  for (const RoutingTrace::Sequence& sequence : trace.sequences) {
    std::vector<std::set<uint32_t>> choices;
    for (uint32_t token = sequence.num_prompt_tokens; token < trace.num_tokens(sequence); ++token) {
      for (uint32_t layer = 0; layer < trace.num_layers; ++layer) {
        std::set<uint32_t>& experts = choices.emplace_back();
        for (const uint16_t expert : trace.ExpertsOf(sequence, token, layer)) {
          experts.insert(layer * trace.num_experts + expert);
        }
      }
    }
    if (!choices.empty()) waiting.push_back(choices);
  }
  const size_t num_places = std::min<size_t>(num_streams, waiting.size());
  std::vector<std::set<uint32_t>> lookups;
  std::vector<std::vector<std::set<uint32_t>>> playing;
  for (;;) {
    while (playing.size() < num_places && !waiting.empty()) {
      playing.push_back(waiting.front());
      waiting.erase(waiting.begin());
    }
    if (playing.size() < num_places || playing.empty()) return lookups;
    for (uint32_t layer = 0; layer < trace.num_layers; ++layer) {
      std::set<uint32_t>& lookup = lookups.emplace_back();
      for (auto& choices : playing) {
        lookup.insert(choices.front().begin(), choices.front().end());
        choices.erase(choices.begin());
      }
    }
    playing.erase(
        std::remove_if(
            playing.begin(), playing.end(), [](const auto& choices) { return choices.empty(); }),
        playing.end());
  }
}

RC_GTEST_PROP(ReplayProperty, LooksUpWhatTheStreamsNeed, ()) {
  const RoutingTrace trace = AnyTrace(9);
  const auto num_streams = *rc::gen::inRange<uint32_t>(1, 5);
  const TraceLookups lookups(trace, num_streams);
  const std::vector<std::set<uint32_t>> plain = PlainLookups(trace, num_streams);
  RC_ASSERT(lookups.size() == plain.size());
  for (size_t i = 0; i < plain.size(); ++i) {
    const absl::Span<const uint32_t> experts = lookups.experts(i);
    RC_ASSERT(experts.size() == plain[i].size());
    RC_ASSERT(std::set<uint32_t>(experts.begin(), experts.end()) == plain[i]);
    RC_ASSERT(lookups.layer(i) == i % trace.num_layers);
  }
}

// A cache as a set, emptied one by one: no slots, no heap.
uint64_t PlainHits(const TraceLookups& lookups, EvictionPolicy& policy, uint32_t num_slots) {
  std::set<uint32_t> cache;
  uint64_t hits = 0;
  for (size_t i = 0; i < lookups.size(); ++i) {
    std::vector<uint32_t> missing;
    for (const uint32_t expert : lookups.experts(i)) {
      if (cache.count(expert) > 0) {
        ++hits;
      } else {
        missing.push_back(expert);
      }
    }
    policy.OnLookup(lookups.layer(i), lookups.experts(i));
    std::set<std::pair<float, uint32_t>> by_worth;
    for (const uint32_t expert : cache) {
      const absl::Span<const uint32_t> needed = lookups.experts(i);
      if (std::find(needed.begin(), needed.end(), expert) != needed.end()) continue;
      float worth = NAN;
      policy.Rank({expert}, absl::MakeSpan(&worth, 1));
      by_worth.emplace(worth, expert);
    }
    for (const uint32_t expert : missing) {
      if (cache.size() == num_slots) {
        if (by_worth.empty()) break;
        cache.erase(by_worth.begin()->second);
        by_worth.erase(by_worth.begin());
      }
      cache.insert(expert);
      policy.OnInsert(expert);
    }
  }
  return hits;
}

RC_GTEST_PROP(ReplayProperty, HitsWhatAPlainCacheHits, ()) {
  const TraceLookups lookups(AnyTrace(9), *rc::gen::inRange<uint32_t>(1, 5));
  const auto num_slots = *rc::gen::inRange<uint32_t>(1, 40);
  for (const std::string& name : EvictionPolicyNames()) {
    const auto policy = MakeEvictionPolicy(name, lookups.shape()).value();
    const auto same = MakeEvictionPolicy(name, lookups.shape()).value();
    const ReplayResult result = Replay(lookups, *policy, num_slots);
    RC_ASSERT(result.hits == PlainHits(lookups, *same, num_slots));
    RC_ASSERT(result.hits + result.misses() == lookups.num_experts());
  }
}

}  // namespace
}  // namespace pregate
