// One request on its way through the engine.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/base/clock.h"
#include "core/engine/engine_stats.h"
#include "core/engine/kv_blocks.h"
#include "core/engine/request.h"
#include "core/engine/response_stream.h"
#include "core/engine/step_plan.h"

namespace pregate {

// Why a sequence is over: a status that is not OK, or a reason.
struct Ending {
  absl::Status status;
  FinishReason reason = FinishReason::kLength;
  std::optional<uint32_t> stop_token_id = std::nullopt;
};

// A sequence's place among those that were admitted, the smallest first: a time and, of one time, a
// count.
using Rank = std::pair<TimePoint, uint64_t>;

// Knows its tokens, how many of them are in the KV cache, and when it ends; not which others run
// beside it. What was generated stays when its blocks are taken (Preempt): keys and values are then
// computed again, the prompt's first, and drawing goes on where it was. The runner draws a token by
// seed and position alone, so that the answer is the same. Made by any thread, then used by the
// engine's alone.
class Sequence {
 public:
  // `request` is valid (ValidateRequest).
  Sequence(uint64_t id,
           Request request,
           std::shared_ptr<ResponseStream> stream,
           TimePoint submitted);

  uint64_t id() const { return id_; }
  int32_t priority() const { return priority_; }
  const std::string& client() const { return client_; }
  TimePoint submitted() const { return submitted_; }
  uint32_t prompt_size() const { return prompt_size_; }
  std::optional<TimePoint> deadline() const { return deadline_; }

  // Positions it may ever write to the KV cache.
  uint32_t max_positions() const;

  // It may run from now on, with blocks for num_tokens() before each Plan; in these are the keys
  // and values of the first `num_computed` tokens, which are counted in `stats`.
  void Admit(BlockLease lease, uint32_t num_computed, Rank rank, EngineStats& stats);
  // Takes its blocks, until the next Admit.
  void Preempt();
  BlockLease& lease() { return lease_; }
  // That of the first Admit, which there was.
  Rank rank() const { return *rank_; }

  // The prompt and what was generated; of these, the first that are in the KV cache.
  absl::Span<const uint32_t> tokens() const { return tokens_; }
  absl::Span<const uint32_t> computed() const { return tokens().first(num_computed_); }
  uint32_t num_tokens() const { return static_cast<uint32_t>(tokens_.size()); }
  // Only the last generated token is missing in the KV cache; else prompt or older ones are, too.
  bool is_generating() const { return num_computed_ >= prompt_size_ && num_missing() == 1; }
  uint32_t num_missing() const { return num_tokens() - num_computed_; }
  // Tokens that one step could process: the rest of the prompt, or all that is missing behind it.
  uint32_t num_ready() const;

  // The first `num_tokens` of these as a part of a step that begins at `now`. Valid until Apply.
  SequenceStep Plan(uint32_t num_tokens, TimePoint now);

  // Set when the reader or the deadline has ended it.
  std::optional<Ending> EndedOutside(TimePoint now) const;

  // Takes in what its part of a step (Plan), which ended at `now`, has brought, and delivers the
  // token. Set when that ends it.
  std::optional<Ending> Apply(const SequenceStep& step,
                              SequenceResult result,
                              TimePoint now,
                              EngineStats& stats);

  // Its completion, counted in `stats`. It is not delivered and nothing is to be called after it.
  Completion Complete(Ending ending, TimePoint now, EngineStats& stats);

  const std::shared_ptr<ResponseStream>& stream() const { return stream_; }

 private:
  bool Deliver(GeneratedToken token, TimePoint now, EngineStats& stats);

  const uint64_t id_;
  const uint32_t prompt_size_;
  const Sampling sampling_;
  const uint32_t max_tokens_;
  const std::vector<uint32_t> stop_token_ids_;  // ascending
  const int32_t priority_;
  const std::string client_;
  const std::optional<TimePoint> deadline_;
  const std::shared_ptr<ResponseStream> stream_;

  std::vector<uint32_t> tokens_;  // the prompt, then those delivered
  uint32_t num_computed_ = 0;     // tokens whose keys and values are in the cache
  uint32_t num_counted_ = 0;      // prompt tokens in the stats
  uint32_t num_cached_ = 0;       // of these, those that were found
  BlockLease lease_;
  ExpertUsage expert_usage_;

  const TimePoint submitted_;
  std::optional<Rank> rank_;
  std::optional<TimePoint> first_step_;
  std::optional<TimePoint> first_token_;
  TimePoint last_token_;  // with first_token_
};

}  // namespace pregate
