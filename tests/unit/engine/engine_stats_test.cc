#include "core/engine/engine_stats.h"

#include <algorithm>
#include <chrono>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/recorded_stats.h"

namespace pregate {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;

using std::chrono::milliseconds;
using std::chrono::seconds;

RecordedStats Visit(const EngineStats& stats, const EngineLoad& load = {.kv_blocks_total = 8}) {
  RecordedStats recorded;
  stats.Visit(load, recorded);
  EXPECT_EQ(recorded.violation(), "");
  return recorded;
}

TEST(EngineStats, ShowsEveryLabelCombinationFromTheStart) {
  const double before = static_cast<double>(std::time(nullptr));
  const EngineStats stats;
  RecordedStats recorded = Visit(stats);
  std::map<std::string, double> values = recorded.values();
  EXPECT_GE(values.at("engine_last_step_timestamp_seconds"), before);
  values.erase("engine_last_step_timestamp_seconds");
  EXPECT_THAT(values,
              ElementsAre(Pair("engine_steps_total{phase=\"decode\"}", 0),
                          Pair("engine_steps_total{phase=\"mixed\"}", 0),
                          Pair("engine_steps_total{phase=\"prefill\"}", 0),
                          Pair("finished_total{reason=\"cancelled\"}", 0),
                          Pair("finished_total{reason=\"deadline\"}", 0),
                          Pair("finished_total{reason=\"error\"}", 0),
                          Pair("finished_total{reason=\"length\"}", 0),
                          Pair("finished_total{reason=\"stop\"}", 0),
                          Pair("kv_cache_blocks{state=\"cached\"}", 0),
                          Pair("kv_cache_blocks{state=\"free\"}", 8),
                          Pair("kv_cache_blocks{state=\"used\"}", 0),
                          Pair("kv_cache_usage_ratio", 0),
                          Pair("preemptions_total", 0),
                          Pair("prompt_tokens_total{source=\"computed\"}", 0),
                          Pair("prompt_tokens_total{source=\"prefix_cache\"}", 0),
                          Pair("requests_running", 0),
                          Pair("requests_waiting", 0)));
  std::vector<std::string> histograms;
  for (const auto& [key, snapshot] : recorded.histograms()) {
    histograms.push_back(key);
    EXPECT_EQ(recorded.count(key), 0u) << key;
  }
  EXPECT_THAT(histograms,
              ElementsAre("batch_size",
                          "batch_tokens",
                          "engine_step_seconds{phase=\"decode\"}",
                          "engine_step_seconds{phase=\"mixed\"}",
                          "engine_step_seconds{phase=\"prefill\"}",
                          "inter_token_latency_seconds",
                          "request_decode_seconds",
                          "request_duration_seconds",
                          "request_prefill_seconds",
                          "request_prompt_tokens",
                          "request_queue_seconds",
                          "time_per_output_token_seconds",
                          "time_to_first_token_seconds"));
}

TEST(EngineStats, HasBoundsForFastAndSlowModels) {
  const EngineStats stats;
  const RecordedStats recorded = Visit(stats);
  const std::vector<double>& first = recorded.histogram("time_to_first_token_seconds").upper_bounds;
  EXPECT_EQ(first.front(), 0.001);
  EXPECT_EQ(first.back(), 400);
  const std::vector<double>& next = recorded.histogram("inter_token_latency_seconds").upper_bounds;
  EXPECT_EQ(next.front(), 0.0005);
  EXPECT_EQ(next.back(), 5);
  EXPECT_GE(std::count_if(next.begin(), next.end(), [](double bound) { return bound < 0.01; }), 8);
}

TEST(EngineStats, ShowsTheLoad) {
  const EngineStats stats;
  const RecordedStats recorded =
      Visit(stats, {.running = 3, .waiting = 5, .kv_blocks_used = 2, .kv_blocks_total = 8});
  EXPECT_EQ(recorded.value("requests_running"), 3);
  EXPECT_EQ(recorded.value("requests_waiting"), 5);
  EXPECT_EQ(recorded.value("kv_cache_blocks{state=\"free\"}"), 6);
  EXPECT_EQ(recorded.value("kv_cache_blocks{state=\"used\"}"), 2);
  EXPECT_EQ(recorded.value("kv_cache_usage_ratio"), 0.25);
}

TEST(EngineStats, CountsStepsByPhase) {
  EngineStats stats;
  stats.OnStep(Phase::kMixed, 4, 100, milliseconds(250));
  stats.OnStep(Phase::kDecode, 3, 3, milliseconds(50));
  stats.OnStep(Phase::kDecode, 2, 2, milliseconds(25));
  const RecordedStats recorded = Visit(stats);
  EXPECT_EQ(recorded.value("engine_steps_total{phase=\"prefill\"}"), 0);
  EXPECT_EQ(recorded.value("engine_steps_total{phase=\"decode\"}"), 2);
  EXPECT_EQ(recorded.value("engine_steps_total{phase=\"mixed\"}"), 1);
  EXPECT_EQ(recorded.count("engine_step_seconds{phase=\"decode\"}"), 2u);
  EXPECT_DOUBLE_EQ(recorded.sum("engine_step_seconds{phase=\"mixed\"}"), 0.25);
  EXPECT_EQ(recorded.sum("batch_size"), 9);
  EXPECT_EQ(recorded.sum("batch_tokens"), 105);
}

TEST(EngineStats, CountsEachEndUnderItsReason) {
  EngineStats stats;
  const auto finish = [&stats](absl::Status status, FinishReason reason) {
    Completion completion;
    completion.status = std::move(status);
    completion.reason = reason;
    stats.OnFinished(completion, seconds(1));
  };
  finish(absl::OkStatus(), FinishReason::kStop);
  finish(absl::OkStatus(), FinishReason::kLength);
  finish(absl::CancelledError(""), FinishReason::kLength);
  finish(absl::DeadlineExceededError(""), FinishReason::kLength);
  finish(absl::UnavailableError(""), FinishReason::kLength);
  finish(absl::InternalError(""), FinishReason::kLength);
  const RecordedStats recorded = Visit(stats);
  EXPECT_EQ(recorded.value("finished_total{reason=\"stop\"}"), 1);
  EXPECT_EQ(recorded.value("finished_total{reason=\"length\"}"), 1);
  EXPECT_EQ(recorded.value("finished_total{reason=\"cancelled\"}"), 1);
  EXPECT_EQ(recorded.value("finished_total{reason=\"deadline\"}"), 1);
  EXPECT_EQ(recorded.value("finished_total{reason=\"error\"}"), 2);
  EXPECT_EQ(recorded.count("request_duration_seconds"), 6u);
}

TEST(EngineStats, MeasuresOnlyThePhasesThatARequestHad) {
  EngineStats stats;
  const auto finish = [&stats](uint32_t completion_tokens) {
    Completion completion;
    completion.prompt_tokens = 10;
    completion.completion_tokens = completion_tokens;
    completion.queue_seconds = 1;
    completion.prefill_seconds = 2;
    completion.decode_seconds = 4;
    stats.OnFinished(completion, seconds(7));
  };
  finish(0);
  finish(1);
  finish(5);
  const RecordedStats recorded = Visit(stats);
  EXPECT_EQ(recorded.count("request_queue_seconds"), 3u);
  EXPECT_EQ(recorded.sum("request_prompt_tokens"), 30);
  EXPECT_EQ(recorded.count("request_prefill_seconds"), 2u);
  EXPECT_EQ(recorded.count("request_decode_seconds"), 2u);
  EXPECT_EQ(recorded.count("time_per_output_token_seconds"), 1u);
  EXPECT_EQ(recorded.sum("time_per_output_token_seconds"), 1);
}

}  // namespace
}  // namespace pregate
