#include "core/engine/engine_stats.h"

#include <chrono>

#include "core/base/check.h"

namespace pregate {
namespace {

// In the order of Phase.
constexpr std::array<const char*, 3> kPhaseNames = {"prefill", "decode", "mixed"};

enum Reason { kReasonStop, kReasonLength, kReasonCancelled, kReasonDeadline, kReasonError };
constexpr std::array<const char*, 5> kReasonNames = {
    "stop", "length", "cancelled", "deadline", "error"};

Reason ReasonOf(const Completion& completion) {
  switch (completion.status.code()) {
    case absl::StatusCode::kOk:
      return completion.reason == FinishReason::kStop ? kReasonStop : kReasonLength;
    case absl::StatusCode::kCancelled:
      return kReasonCancelled;
    case absl::StatusCode::kDeadlineExceeded:
      return kReasonDeadline;
    default:
      return kReasonError;
  }
}

// From a millisecond to the minutes that a queue may take.
std::vector<double> RequestBounds() {
  return {0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.25, 0.5,
          0.75,  1,      2.5,   5,    7.5,  10,   20,   40,   80,  160,  400};
}

// Dense below 10 ms, where a fast model's tokens fall.
std::vector<double> TokenBounds() {
  return {0.0005, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.005, 0.006, 0.0075, 0.01, 0.015, 0.02, 0.03,
          0.04,   0.05,  0.075,  0.1,   0.15,  0.2,   0.3,   0.5,   0.75,   1,    2,     5};
}

double UnixSeconds() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace

EngineStats::EngineStats()
    : time_to_first_token_seconds_(RequestBounds()),
      inter_token_latency_seconds_(TokenBounds()),
      time_per_output_token_seconds_(TokenBounds()),
      request_queue_seconds_(RequestBounds()),
      request_prefill_seconds_(RequestBounds()),
      request_decode_seconds_(RequestBounds()),
      request_duration_seconds_(RequestBounds()),
      request_prompt_tokens_(ExponentialBounds(1, 2, 1 << 20)),
      step_seconds_{Histogram(ExponentialBounds(0.0005, 2, 10)),
                    Histogram(ExponentialBounds(0.0005, 2, 10)),
                    Histogram(ExponentialBounds(0.0005, 2, 10))},
      batch_size_(ExponentialBounds(1, 2, 4096)),
      batch_tokens_(ExponentialBounds(1, 2, 65536)) {
  static_assert(kPhaseNames.size() == kPhases && kReasonNames.size() == kReasons);
  last_step_timestamp_seconds_.Set(UnixSeconds());
}

void EngineStats::OnStep(Phase phase, size_t sequences, size_t tokens, Duration duration) {
  const auto index = static_cast<size_t>(phase);
  steps_[index].Add();
  step_seconds_[index].Observe(ToSeconds(duration));
  last_step_timestamp_seconds_.Set(UnixSeconds());
  batch_size_.Observe(static_cast<double>(sequences));
  batch_tokens_.Observe(static_cast<double>(tokens));
}

void EngineStats::OnPromptTokens(size_t tokens) { prompt_tokens_.Add(static_cast<double>(tokens)); }

void EngineStats::OnCachedPromptTokens(size_t tokens) {
  cached_prompt_tokens_.Add(static_cast<double>(tokens));
}

void EngineStats::OnPreemption() { preemptions_.Add(); }

void EngineStats::OnFirstToken(Duration since_submit) {
  time_to_first_token_seconds_.Observe(ToSeconds(since_submit));
}

void EngineStats::OnNextToken(Duration since_last) {
  inter_token_latency_seconds_.Observe(ToSeconds(since_last));
}

void EngineStats::OnFinished(const Completion& completion, Duration since_submit) {
  finished_[ReasonOf(completion)].Add();
  request_duration_seconds_.Observe(ToSeconds(since_submit));
  request_queue_seconds_.Observe(completion.queue_seconds);
  request_prompt_tokens_.Observe(completion.prompt_tokens);
  // A request that ended earlier had no prefill or decode to measure.
  if (completion.completion_tokens >= 1) {
    request_prefill_seconds_.Observe(completion.prefill_seconds);
    request_decode_seconds_.Observe(completion.decode_seconds);
  }
  if (completion.completion_tokens >= 2) {
    time_per_output_token_seconds_.Observe(completion.decode_seconds /
                                           (completion.completion_tokens - 1));
  }
}

void EngineStats::Visit(const EngineLoad& load, StatsVisitor& visitor) const {
  VisitRequests(load, visitor);
  VisitPrompts(visitor);
  VisitSteps(load, visitor);
}

void EngineStats::VisitRequests(const EngineLoad& load, StatsVisitor& visitor) const {
  visitor.OnGauge("requests_running", "Sequences that the engine advances.", {}, load.running);
  visitor.OnGauge("requests_waiting", "Requests that wait for a place.", {}, load.waiting);
  visitor.OnCounter("preemptions_total",
                    "Sequences that lost their KV blocks to others and were computed again.",
                    {},
                    preemptions_.value());
  for (size_t i = 0; i < kReasons; ++i) {
    visitor.OnCounter("finished_total",
                      "Requests that have ended, by why.",
                      {{"reason", kReasonNames[i]}},
                      finished_[i].value());
  }
  visitor.OnHistogram("time_to_first_token_seconds",
                      "From the submission of a request to its first token.",
                      {},
                      time_to_first_token_seconds_.Read());
  visitor.OnHistogram("inter_token_latency_seconds",
                      "From a token to the next of the same request; one observation per token.",
                      {},
                      inter_token_latency_seconds_.Read());
  visitor.OnHistogram("time_per_output_token_seconds",
                      "Mean time per token of a request after its first.",
                      {},
                      time_per_output_token_seconds_.Read());
  visitor.OnHistogram("request_queue_seconds",
                      "From the submission of a request to its first step, or to its end without.",
                      {},
                      request_queue_seconds_.Read());
  visitor.OnHistogram("request_prefill_seconds",
                      "From the first step of a request to its first token.",
                      {},
                      request_prefill_seconds_.Read());
  visitor.OnHistogram("request_decode_seconds",
                      "From the first token of a request to its last.",
                      {},
                      request_decode_seconds_.Read());
  visitor.OnHistogram("request_duration_seconds",
                      "From the submission of a request to its end.",
                      {},
                      request_duration_seconds_.Read());
}

void EngineStats::VisitPrompts(StatsVisitor& visitor) const {
  constexpr char kPromptHelp[] =
      "Prompt tokens processed, by where their keys and values are from.";
  visitor.OnCounter(
      "prompt_tokens_total", kPromptHelp, {{"source", "computed"}}, prompt_tokens_.value());
  visitor.OnCounter("prompt_tokens_total",
                    kPromptHelp,
                    {{"source", "prefix_cache"}},
                    cached_prompt_tokens_.value());
  visitor.OnHistogram(
      "request_prompt_tokens", "Prompt tokens of a request.", {}, request_prompt_tokens_.Read());
}

void EngineStats::VisitSteps(const EngineLoad& load, StatsVisitor& visitor) const {
  for (size_t i = 0; i < kPhases; ++i) {
    visitor.OnCounter("engine_steps_total",
                      "Steps that have run, by what their tokens were.",
                      {{"phase", kPhaseNames[i]}},
                      steps_[i].value());
  }
  for (size_t i = 0; i < kPhases; ++i) {
    visitor.OnHistogram("engine_step_seconds",
                        "Time of a step.",
                        {{"phase", kPhaseNames[i]}},
                        step_seconds_[i].Read());
  }
  visitor.OnGauge("engine_last_step_timestamp_seconds",
                  "Unix time of the end of the last step; the engine's start before the first.",
                  {},
                  last_step_timestamp_seconds_.value());
  visitor.OnHistogram("batch_size", "Sequences in a step.", {}, batch_size_.Read());
  visitor.OnHistogram("batch_tokens", "Tokens in a step.", {}, batch_tokens_.Read());
  constexpr char kBlocksHelp[] = "Blocks of the KV cache, by state.";
  const double used = load.kv_blocks_used;
  const double cached = load.kv_blocks_cached;
  const double total = load.kv_blocks_total;
  visitor.OnGauge("kv_cache_blocks", kBlocksHelp, {{"state", "free"}}, total - used - cached);
  visitor.OnGauge("kv_cache_blocks", kBlocksHelp, {{"state", "used"}}, used);
  visitor.OnGauge("kv_cache_blocks", kBlocksHelp, {{"state", "cached"}}, cached);
  visitor.OnGauge(
      "kv_cache_usage_ratio", "Share of the KV cache's blocks in use, 0 to 1.", {}, used / total);
}

}  // namespace pregate
