// Sequences that answer side by side, a token each a step: the same steps every time they are run.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "core/model/torch_runner.h"

namespace pregate {

// Drives a runner directly, without an engine. Used by one thread; the runner by nobody else
// meanwhile.
class LockstepDecoder {
 public:
  // Answers to `prompts` (at least one, none empty, at most max_batch_tokens long) of up to
  // `max_steps` tokens each: greedy ones, or where `continuations` has as many entries the given
  // ones, each at least max_steps long, so that the routing is that of a text. INVALID_ARGUMENT
  // when they overrun the context or the KV cache. A sequence's id grows by `id_stride` from one
  // Prefill to the next (at least the number of prompts; 0 = just that): a multiple of a forced
  // trace's sequences makes all of them go where the first went. `runner` outlives this.
  static absl::StatusOr<LockstepDecoder> Create(
      TorchRunner& runner,
      std::vector<std::vector<uint32_t>> prompts,
      uint32_t max_steps,
      std::vector<std::vector<uint32_t>> continuations = {},
      uint64_t id_stride = 0);

  // Starts over: computes the prompts, one after another, and each one's first token. Appends the
  // routing of each to `routings` unless that is null.
  absl::Status Prefill(std::vector<Routing>* routings = nullptr);

  // The next token of every sequence. Fills `routing` unless it is null.
  absl::Status Step(Routing* routing = nullptr);

  uint32_t batch_size() const { return static_cast<uint32_t>(prompts_.size()); }

  // Of every bit of the logits since Prefill.
  uint64_t logits_digest() const { return logits_digest_; }

 private:
  LockstepDecoder(TorchRunner& runner,
                  std::vector<std::vector<uint32_t>> prompts,
                  std::vector<std::vector<uint32_t>> continuations,
                  std::vector<std::vector<uint32_t>> blocks,
                  uint64_t id_stride);
  // The token that follows a sequence's last, whose logits are row `row`.
  void Append(absl::Span<const float> logits, size_t row, size_t sequence);

  TorchRunner* runner_;
  std::vector<std::vector<uint32_t>> prompts_;
  std::vector<std::vector<uint32_t>> continuations_;
  std::vector<std::vector<uint32_t>> blocks_;  // KV blocks of each sequence
  std::vector<std::vector<uint32_t>> answers_;
  std::vector<uint32_t> rows_;  // 0, 1, …: every sequence's only token wants logits
  uint64_t logits_digest_ = 0;
  uint64_t id_stride_;
  uint64_t first_id_ = 0;  // of the sequences: tells those of one Prefill from those of another
};

}  // namespace pregate
