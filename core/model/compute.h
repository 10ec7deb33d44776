// What a pass computes, on whatever device: Transformer keeps the books, this has the numbers.
//
// Implementations: CpuCompute, and CudaCompute where the build has it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/device/backend.h"
#include "core/expert/expert_predictor.h"
#include "core/kernel/attention.h"

namespace pregate {

// The tokens of a pass.
struct StepTokens {
  absl::Span<const uint32_t> ids;        // [num_tokens]
  absl::Span<const uint32_t> positions;  // [num_tokens]
  absl::Span<const TokenPlace> places;   // [num_tokens]
  int64_t count() const { return static_cast<int64_t>(ids.size()); }
};

// Where a block's tokens go. A place is token · experts_per_token + k: a token's k-th choice.
struct ChosenExperts {
  absl::Span<uint32_t> own;   // [places]; may be replaced before GroupedRows are made of it
  absl::Span<uint32_t> next;  // the pre-gate's choice for the next block; empty without one
};

// The places of a block by the expert that they go to, ascending for each expert.
struct GroupedRows {
  absl::Span<const uint32_t> first;   // [num_experts + 1]: expert e has places[first[e] …]
  absl::Span<const uint32_t> places;  // [places]
  absl::Span<const uint32_t> rows;    // [places]: places[rows[p]] = p
};

// One expert to be computed.
struct ReadyExpert {
  uint32_t expert = 0;
  uint32_t encoding = 0;
  const std::byte* record = nullptr;  // where the device reads it, until more is asked for
};

// The calls of a pass are Begin, then for each block Attend, BeginExperts, RunExperts any number of
// times, EndExperts; then Logits. Used by one thread at a time; may throw what LibTorch throws.
class ModelCompute {
 public:
  virtual ~ModelCompute() = default;

  // The residual becomes the embeddings of `tokens`, which stay in place to the end of the pass.
  virtual absl::Status Begin(const StepTokens& tokens) = 0;

  // Adds the attention of block `layer` to the residual, and lets its gates choose. What is
  // returned is valid until the next call; of a pre-gated model `own` is what `next` was before.
  virtual absl::StatusOr<ChosenExperts> Attend(uint32_t layer) = 0;

  // The stream that experts are computed on: leases are taken for it.
  virtual Stream& stream() = 0;
  // Whether calls return before their work is done: experts that are there together are then better
  // given together, and what the host has to think about can wait until they are.
  virtual bool is_asynchronous() const = 0;

  // Experts are computed as they come, in any order and grouping: their rows do not depend on it.
  virtual absl::Status BeginExperts(const GroupedRows& rows) = 0;
  virtual absl::Status RunExperts(absl::Span<const ReadyExpert> experts) = 0;
  // Adds the experts' outputs to the residual, weighted, in the order in which the gate chose.
  // Those of `missing` count as zeros.
  virtual absl::Status EndExperts(absl::Span<const uint32_t> missing) = 0;

  // What follows these tokens, valid until the next call. Of the first `num_greedy` it is the token
  // with the largest logit, of equals the lowest id.
  struct Next {
    std::vector<absl::StatusOr<uint32_t>> greedy;  // INTERNAL: a logit is not finite
    absl::Span<const float> logits;                // raw, of the others [their number, vocab_size]
  };
  virtual absl::StatusOr<Next> Logits(absl::Span<const uint32_t> tokens, uint32_t num_greedy) = 0;

  // The gates of blocks to come on the residual as it was when the last block's gates chose.
  virtual GateLookahead& gates_ahead() = 0;

  virtual uint64_t kv_bytes() const = 0;
  // Of what a pass computes with, beside weights and KV cache.
  virtual uint64_t workspace_bytes() const = 0;
};

}  // namespace pregate
