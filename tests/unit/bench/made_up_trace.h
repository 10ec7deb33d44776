// A routing trace for tests of what is made of one.
#pragma once

#include <cstdint>
#include <utility>

#include "core/expert/routing_trace.h"

namespace pregate {

// 3 layers of 8 experts, top-2; 4 sequences of 20 tokens, of which the first 5 are prompt. A token
// goes to one of four pairs of neighbours in the first layer, and from each to one of its own in
// the next: who sees a layer knows the one behind it.
inline RoutingTrace MadeUpTrace() {
  RoutingTrace trace = {.model = "made up",
                        .num_layers = 3,
                        .num_experts = 8,
                        .experts_per_token = 2,
                        .sequences = {}};
  uint32_t random = 1;
  for (int i = 0; i < 4; ++i) {
    RoutingTrace::Sequence sequence;
    sequence.num_prompt_tokens = 5;
    for (int token = 0; token < 20; ++token) {
      random = random * 1664525 + 1013904223;  // Numerical Recipes
      for (uint32_t layer = 0; layer < trace.num_layers; ++layer) {
        const uint32_t first = ((random >> 24U) + 3 * layer) % 4 * 2;
        sequence.expert_ids.push_back(static_cast<uint16_t>(first));
        sequence.expert_ids.push_back(static_cast<uint16_t>(first + 1));
      }
    }
    trace.sequences.push_back(std::move(sequence));
  }
  return trace;
}

}  // namespace pregate
