// One step of the engine as data: what each sequence contributes, and what came of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "core/engine/expert_usage.h"
#include "core/engine/request.h"
#include "core/engine/response_stream.h"

namespace pregate {

// A run of consecutive tokens of one sequence. Spans and pointers stay valid until the step's
// result has been applied.
struct SequenceStep {
  uint64_t sequence_id = 0;
  absl::Span<const uint32_t> token_ids;  // at least one
  // Of token_ids[0]; keys and values of all earlier positions are in the cache.
  // Others may have put them there, in blocks that they share. A sequence may begin again with the
  // tokens it had: its blocks were taken meanwhile.
  uint32_t first_position = 0;
  // KV blocks of the sequence; those from first_position on nobody else has. In order of position:
  // position p is slot p % block_size of blocks[p / block_size].
  absl::Span<const uint32_t> blocks;
  bool is_prompt = false;  // all the tokens were given; else all were generated
  // Set: draw the token that follows the last one; unset: more is known already.
  const Sampling* sampling = nullptr;
};

// Of a step: only prompt tokens, only generated ones, or both.
enum class Phase { kPrefill, kDecode, kMixed };

struct StepPlan {
  std::vector<SequenceStep> sequences;  // of distinct sequences, none empty
  size_t num_tokens() const;
  Phase phase() const;  // kDecode for a plan without sequences
};

// What one sequence got out of a step.
struct SequenceResult {
  absl::Status status;  // not OK: only this sequence fails
  // When its SequenceStep::sampling was set and status is OK.
  std::optional<GeneratedToken> token = std::nullopt;
  ExpertUsage expert_usage = {};
};

// One entry per StepPlan::sequences, in the same order.
struct StepResult {
  std::vector<SequenceResult> sequences;
};

}  // namespace pregate
