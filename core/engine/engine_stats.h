// What the engine counts: the request, latency and engine groups of the metrics, and the prompts'
// tokens. How many generated tokens count is known where stop strings are found: to the reader.
#pragma once

#include <array>
#include <cstddef>

#include "core/base/clock.h"
#include "core/base/stats.h"
#include "core/engine/engine_load.h"
#include "core/engine/response_stream.h"
#include "core/engine/step_plan.h"

namespace pregate {

// Written by the engine thread, read by any.
class EngineStats {
 public:
  EngineStats();

  // A step that has run, successfully or not.
  void OnStep(Phase phase, size_t sequences, size_t tokens, Duration duration);
  // Prompt tokens whose keys and values a step has computed.
  void OnPromptTokens(size_t tokens);
  // Those that were found in the KV cache instead.
  void OnCachedPromptTokens(size_t tokens);
  // A sequence whose KV blocks were taken.
  void OnPreemption();
  // A token that was delivered: a request's first, so long after Submit, or a later one, so long
  // after the one before it.
  void OnFirstToken(Duration since_submit);
  void OnNextToken(Duration since_last);
  // A request that has ended, so long after Submit.
  void OnFinished(const Completion& completion, Duration since_submit);

  // With `load` for the gauges.
  void Visit(const EngineLoad& load, StatsVisitor& visitor) const;

 private:
  static constexpr size_t kPhases = 3;
  static constexpr size_t kReasons = 5;

  void VisitRequests(const EngineLoad& load, StatsVisitor& visitor) const;
  void VisitPrompts(StatsVisitor& visitor) const;
  void VisitSteps(const EngineLoad& load, StatsVisitor& visitor) const;

  std::array<Counter, kReasons> finished_;
  Counter preemptions_;
  Histogram time_to_first_token_seconds_;
  Histogram inter_token_latency_seconds_;
  Histogram time_per_output_token_seconds_;
  Histogram request_queue_seconds_;
  Histogram request_prefill_seconds_;
  Histogram request_decode_seconds_;
  Histogram request_duration_seconds_;
  Counter prompt_tokens_;
  Counter cached_prompt_tokens_;
  Histogram request_prompt_tokens_;
  std::array<Counter, kPhases> steps_;
  std::array<Histogram, kPhases> step_seconds_;
  Gauge last_step_timestamp_seconds_;
  Histogram batch_size_;
  Histogram batch_tokens_;
};

}  // namespace pregate
