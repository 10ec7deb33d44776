// What is asked of the engine: token ids in, and how to continue them. Plain values, validated
// where they enter (Engine::Submit).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "core/base/clock.h"

namespace pregate {

inline constexpr uint32_t kMaxLogprobs = 20;
inline constexpr int32_t kMaxPriority = 10;

// How a token is drawn from the logits. The order is temperature, top_k, top_p, as in Hugging
// Face's `generate`.
struct Sampling {
  float temperature = 1;  // 0 = greedy: the most likely token, of equals the one with the lowest id
  uint32_t top_k = 0;     // keep the k most likely; 0 = all
  float top_p = 1;        // keep the fewest whose probabilities sum to at least top_p, in (0, 1]
  // With the token's position it determines the random number, whatever else is in the batch.
  uint64_t seed = 0;
  // Report the chosen token's logprob and this many of the most likely, at most kMaxLogprobs; unset
  // = none.
  std::optional<uint32_t> logprobs = std::nullopt;
};

// When a sequence ends. Stop strings are the reader's business (they are found in text): it ends
// the stream with Stop().
struct Stopping {
  uint32_t max_tokens = 0;  // ≥ 1
  // The model's end-of-sequence ids among them, unless they are to be ignored.
  std::vector<uint32_t> stop_token_ids = {};
};

struct Request {
  std::string id;                          // for logs; not necessarily unique
  std::vector<uint32_t> prompt_token_ids;  // at least one
  Sampling sampling;
  Stopping stopping;
  // Higher goes first; in [-kMaxPriority, kMaxPriority].
  int32_t priority = 0;
  // Who asks. Requests of one priority share the engine fairly between clients, not between
  // requests; "" is a client like any other.
  std::string client;
  std::optional<TimePoint> deadline = std::nullopt;
};

// OK when an engine of this vocabulary and context can run `request`, else INVALID_ARGUMENT that
// names the field, its value and the limit.
absl::Status ValidateRequest(const Request& request, uint32_t vocab_size, uint32_t max_context);

}  // namespace pregate
