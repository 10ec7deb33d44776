// What /metrics shows.
#include <map>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/process.h"
#include "tests/support/temp_folder.h"
#include "tests/support/test_server.h"

namespace pregate {
namespace {

using ::testing::HasSubstr;

// Every name of the groups that this server has, as dashboards know them.
const char* const kNames[] = {
    "pregate_requests_total",
    "pregate_requests_rejected_total",
    "pregate_requests_running",
    "pregate_requests_waiting",
    "pregate_finished_total",
    "pregate_preemptions_total",
    "pregate_time_to_first_token_seconds",
    "pregate_inter_token_latency_seconds",
    "pregate_time_per_output_token_seconds",
    "pregate_request_queue_seconds",
    "pregate_request_prefill_seconds",
    "pregate_request_decode_seconds",
    "pregate_request_duration_seconds",
    "pregate_prompt_tokens_total",
    "pregate_generation_tokens_total",
    "pregate_request_prompt_tokens",
    "pregate_request_generation_tokens",
    "pregate_engine_steps_total",
    "pregate_engine_step_seconds",
    "pregate_engine_last_step_timestamp_seconds",
    "pregate_batch_size",
    "pregate_batch_tokens",
    "pregate_kv_cache_blocks",
    "pregate_kv_cache_usage_ratio",
    "pregate_grpc_server_handled_total",
    "pregate_stream_write_blocked_seconds_total",
    "pregate_health_state",
    "pregate_build_info",
    "pregate_config_info",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_open_fds",
    "process_start_time_seconds",
};

TEST(MetricsTest, EveryNameIsThereBeforeTheFirstRequest) {
  TestServer server;
  const TestServer::HttpAnswer answer = server.Get("/metrics");
  EXPECT_EQ(answer.status, 200);
  EXPECT_THAT(answer.content_type, HasSubstr("text/plain; version=0.0.4"));
  std::set<std::string> names;
  for (absl::string_view line : absl::StrSplit(answer.body, '\n')) {
    const std::vector<std::string> words = absl::StrSplit(line, absl::MaxSplits(' ', 3));
    if (words.size() == 4 && words[1] == "TYPE") names.insert(words[2]);
  }
  for (const char* name : kNames) EXPECT_EQ(names.count(name), 1u) << name;
  for (const char* method : {"Generate", "Complete", "Tokenize", "GetLoad", "Drain"}) {
    EXPECT_EQ(server.Metric(absl::StrCat(
                  "pregate_requests_total{method=\"", method, "\",code=\"DEADLINE_EXCEEDED\"}")),
              0);
  }
  for (const char* reason : {"stop", "length", "cancelled", "deadline", "error"}) {
    EXPECT_EQ(server.Metric(absl::StrCat("pregate_finished_total{reason=\"", reason, "\"}")), 0);
  }
}

TEST(MetricsTest, EverySeriesButTheProcesssNamesTheModel) {
  TestServer server;
  for (absl::string_view line : absl::StrSplit(server.Get("/metrics").body, '\n')) {
    if (line.empty() || line[0] == '#') continue;
    EXPECT_NE(absl::StartsWith(line, "process_"), absl::StrContains(line, "model=\"fake\""))
        << line;
    double value = 0;
    EXPECT_TRUE(absl::SimpleAtod(line.substr(line.rfind(' ') + 1), &value)) << line;
  }
}

TEST(MetricsTest, CountsWhatHappened) {
  TestServer server;
  ASSERT_TRUE(Generate(server, Ask("abcdef", 5)).status.ok());
  v1::GenerateRequest wrong = Ask("abcdef", 5);
  wrong.mutable_sampling()->set_top_p(2);
  Generate(server, wrong);
  EXPECT_EQ(server.Metric("pregate_requests_total{method=\"Generate\",code=\"OK\"}"), 1);
  EXPECT_EQ(server.Metric("pregate_requests_total{method=\"Generate\",code=\"INVALID_ARGUMENT\"}"),
            1);
  EXPECT_EQ(
      server.Metric("pregate_grpc_server_handled_total{grpc_method=\"Generate\",grpc_code=\"OK\"}"),
      1);
  EXPECT_EQ(server.Metric("pregate_requests_rejected_total{reason=\"invalid\"}"), 1);
  EXPECT_EQ(server.Metric("pregate_finished_total{reason=\"length\"}"), 1);
  EXPECT_EQ(server.Metric("pregate_prompt_tokens_total{source=\"computed\"}"), 6);
  EXPECT_EQ(server.Metric("pregate_generation_tokens_total"), 5);
  EXPECT_EQ(server.Metric("pregate_time_to_first_token_seconds_count"), 1);
  EXPECT_EQ(server.Metric("pregate_inter_token_latency_seconds_count"), 4);
  EXPECT_EQ(server.Metric("pregate_health_state{state=\"ready\"}"), 1);
}

TEST(MetricsTest, CountsNoTokenBehindAStopString) {
  FakeEngineOptions options;
  options.runner.script = std::vector<uint32_t>(200, 'a' - '!');  // "aaa…", as ids of the tokenizer
  TestServer server(options);
  v1::GenerateRequest request = Ask("the", 200);
  request.mutable_stopping()->add_stop("aaa");
  uint64_t counted = 0;
  for (int i = 0; i < 20; ++i) {
    const Streamed streamed = Generate(server, request);
    ASSERT_EQ(streamed.choice.finished().stop(), "aaa");
    EXPECT_EQ(streamed.summary.usage().completion_tokens(), 3u);
    counted += streamed.summary.usage().completion_tokens();
  }
  EXPECT_EQ(server.Metric("pregate_generation_tokens_total"), counted);
  EXPECT_EQ(server.Metric("pregate_request_generation_tokens_sum"), counted);
  EXPECT_EQ(server.Metric("pregate_request_generation_tokens_count"), 20);
}

// Every series that /metrics shows, without its value.
std::set<std::string> SeriesOf(const TestServer& server) {
  std::set<std::string> series;
  for (absl::string_view line : absl::StrSplit(server.Get("/metrics").body, '\n')) {
    if (!line.empty() && line[0] != '#') series.emplace(line.substr(0, line.rfind(' ')));
  }
  return series;
}

TEST(MetricsTest, TenThousandRequestsOfAThousandClientsAddNoSeries) {
  constexpr int kClients = 1000;
  constexpr int kThreads = 8;
  constexpr int kRequestsOfAThread = 1250;
  std::string tokens;
  for (int i = 0; i < kClients; ++i) absl::StrAppend(&tokens, "token-", i, " client-", i, "\n");
  const TempFolder folder;
  ServerOptions options;
  options.auth_token_file = folder.Write("tokens", tokens);
  FakeEngineOptions engine;
  engine.keeps_experts = true;
  TestServer server(engine, TestServer::Start::kReady, options);
  const std::set<std::string> before = SeriesOf(server);

  std::vector<std::thread> threads;
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&server, thread] {
      for (int i = 0; i < kRequestsOfAThread; ++i) {
        const int number = thread * kRequestsOfAThread + i;
        grpc::ClientContext context;
        context.AddMetadata("authorization", absl::StrCat("Bearer token-", number % kClients));
        v1::GenerateRequest request = Ask(absl::StrCat("prompt ", number), 1);
        request.set_request_id(absl::StrCat("request-", number));
        request.set_priority(number % 21 - 10);
        if (number % 100 == 0) request.set_model(absl::StrCat("model-", number));
        v1::CompleteResponse response;
        EXPECT_EQ(server.inference().Complete(&context, request, &response).ok(),
                  number % 100 != 0);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();

  EXPECT_EQ(server.Metric("pregate_requests_total{method=\"Complete\",code=\"OK\"}"), 9900);
  EXPECT_EQ(server.Metric("pregate_requests_total{method=\"Complete\",code=\"NOT_FOUND\"}"), 100);
  EXPECT_EQ(SeriesOf(server), before);
  EXPECT_LT(before.size(), 1500u);
}

TEST(MetricsTest, PromtoolAcceptsThem) {
  TestServer loading({}, TestServer::Start::kLoading);
  TestServer server;
  ASSERT_TRUE(Generate(server, Ask("abcdef", 5)).status.ok());
  for (const TestServer* scraped : {&loading, &server}) {
    const ProgramResult result =
        RunProgram({"promtool", "check", "metrics"}, scraped->Get("/metrics").body);
    EXPECT_EQ(result.exit_code, 0);
    EXPECT_EQ(result.out + result.err, "");
  }
}

TEST(MetricsTest, OtherPathsAreNotThere) {
  TestServer server;
  EXPECT_EQ(server.Get("/").status, 404);
  EXPECT_EQ(server.Get("/metrics/").status, 404);
}

}  // namespace
}  // namespace pregate
