// What goes into one pass through a model and what can be seen of it: plain values, no LibTorch.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "core/engine/expert_usage.h"

namespace pregate {

// Consecutive tokens of one sequence.
struct TokenRun {
  absl::Span<const uint32_t> token_ids;  // at least one
  uint32_t first_position = 0;           // of token_ids[0]; all earlier positions are in the cache
  absl::Span<const uint32_t> blocks;     // KV blocks in order of position, enough for all tokens
  uint64_t sequence = 0;                 // whose they are
  bool is_prompt = false;                // they were given, not generated
};

// One pass. Tokens are counted through all runs: token 0 is the first of runs[0].
struct ForwardBatch {
  absl::Span<const TokenRun> runs;  // of distinct sequences, at most max_batch_tokens tokens
  absl::Span<const uint32_t> logit_tokens;  // the tokens whose logits are wanted, in any order
  uint32_t num_greedy = 0;  // of these, the first: the most likely next token is all that is wanted
};

// What came of one run.
struct RunResult {
  absl::Status status;  // not OK: an expert that its tokens go to could not be had
  ExpertUsage usage;
};

// Which experts each token went to.
struct Routing {
  uint32_t num_layers = 0;
  uint32_t num_tokens = 0;
  uint32_t experts_per_token = 0;
  std::vector<uint32_t> expert_ids;  // [num_layers, num_tokens, experts_per_token], best first

  absl::Span<const uint32_t> ExpertsOf(uint32_t layer, uint32_t token) const {
    return absl::MakeConstSpan(expert_ids)
        .subspan((size_t{layer} * num_tokens + token) * experts_per_token, experts_per_token);
  }
};

}  // namespace pregate
