// The way of a request's tokens from the engine to its reader.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "core/base/clock.h"
#include "core/base/mutex.h"
#include "core/engine/expert_usage.h"

namespace pregate {

// Natural logarithms of the softmax of the raw float32 logits, before temperature.
struct TokenLogprob {
  struct Candidate {
    uint32_t token_id = 0;
    float logprob = 0;
  };
  float logprob = 0;                // of the chosen token
  std::vector<Candidate> top = {};  // most likely first; as many as were asked for
};

struct GeneratedToken {
  uint32_t token_id = 0;
  std::optional<TokenLogprob> logprob = std::nullopt;  // when Sampling::logprobs is set
};

enum class FinishReason { kStop, kLength };

// How a request ended. Comes exactly once, after its last token.
struct Completion {
  // Not OK: CANCELLED, DEADLINE_EXCEEDED, UNAVAILABLE (shutting down) or the fault; then there is
  // no reason.
  absl::Status status;
  FinishReason reason = FinishReason::kLength;
  // With kStop: the id that matched; it is not among the tokens.
  std::optional<uint32_t> stop_token_id = std::nullopt;
  uint32_t prompt_tokens = 0;
  uint32_t cached_prompt_tokens = 0;  // of these, those whose keys and values others had computed
  uint32_t completion_tokens = 0;
  double queue_seconds = 0;    // from Submit to the first step
  double prefill_seconds = 0;  // from the first step to the first token
  double decode_seconds = 0;   // from the first token to the last
  ExpertUsage expert_usage = {};
};

// One request's tokens, in order, then its completion. The engine writes and never waits; one
// reader reads when it likes. Both hold it through a shared_ptr, since either may be gone first; a
// reader that goes before the completion calls Cancel, or the engine works on for nobody. What
// waits unread is bounded by the request's max_tokens. Thread-safe.
class ResponseStream {
 public:
  struct Batch {
    std::vector<GeneratedToken> tokens;
    std::optional<Completion> completion;  // behind the tokens
  };

  // --- the reader's side ---

  // Takes all that has arrived since the last call; may be empty.
  Batch Take();

  // `wake` is called when the first token or completion since the last Take arrives, from the
  // thread that delivers it, and at once when something is there already; now and then it is called
  // with nothing new to take. It must not block, since the engine waits for it, and must not call
  // SetWake; Take is allowed. Set it once and unset it with nullptr: that waits for a call that is
  // running, and none comes after it. So call SetWake under no lock that `wake` takes; Take, Cancel
  // and Stop may be called under any.
  void SetWake(std::function<void()> wake);

  // The reader wants no more: the engine frees the sequence at its next step boundary. The first of
  // the two counts.
  void Cancel();  // gave up: the completion is CANCELLED
  void Stop();  // has what it wanted (a stop string): the completion is kStop, and later tokens are
                // neither delivered nor counted

  // --- the engine's side ---

  enum class ReaderState { kReading, kStopped, kCancelled };
  ReaderState reader_state() const;
  // False, and the token is dropped, when the reader wants no more.
  bool Push(GeneratedToken token);
  // Once, after the last Push.
  void Finish(Completion completion);

 private:
  void Wake();

  mutable Mutex mutex_;
  Batch arrived_ ABSL_GUARDED_BY(mutex_);
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  ReaderState reader_state_ ABSL_GUARDED_BY(mutex_) = ReaderState::kReading;

  // Held while wake_ runs, so that SetWake can wait for it, and never together with mutex_, so that
  // a reader may call Take under the lock that its wake takes.
  Mutex wake_mutex_;
  std::function<void()> wake_ ABSL_GUARDED_BY(wake_mutex_);
};

}  // namespace pregate
