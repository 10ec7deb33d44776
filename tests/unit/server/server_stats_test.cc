#include "server/server_stats.h"

#include "absl/strings/match.h"
#include "gtest/gtest.h"
#include "server/status.h"
#include "tests/support/recorded_stats.h"

namespace pregate {
namespace {

RecordedStats Read(const ServerStats& stats) {
  RecordedStats recorded;
  stats.Visit(recorded);
  EXPECT_EQ(recorded.violation(), "");
  return recorded;
}

TEST(ServerStatsTest, EverySeriesIsThereFromTheStart) {
  const ServerStats stats({"Generate", "Complete"});
  const RecordedStats recorded = Read(stats);
  size_t requests = 0;
  for (const auto& [series, value] : recorded.values()) {
    EXPECT_EQ(value, 0) << series;
    if (absl::StartsWith(series, "requests_total{")) ++requests;
  }
  EXPECT_EQ(requests, 2u * 17);
  EXPECT_EQ(recorded.values().size(), 2u * 2 * 17 + 4 + 2);
}

TEST(ServerStatsTest, CountsByMethodAndCode) {
  ServerStats stats({"Generate"});
  stats.OnHandled("Generate", absl::OkStatus());
  stats.OnHandled("Generate", absl::OkStatus());
  stats.OnHandled("Generate", absl::CancelledError(""));
  stats.OnWriteBlocked(0.5);
  const RecordedStats recorded = Read(stats);
  EXPECT_EQ(recorded.value("requests_total{method=\"Generate\",code=\"OK\"}"), 2);
  EXPECT_EQ(recorded.value("requests_total{method=\"Generate\",code=\"CANCELLED\"}"), 1);
  EXPECT_EQ(recorded.value("grpc_server_handled_total{grpc_method=\"Generate\",grpc_code=\"OK\"}"),
            2);
  EXPECT_EQ(recorded.value("stream_write_blocked_seconds_total"), 0.5);
}

TEST(ServerStatsTest, CountsTokensAsTheyComeAndByAnswer) {
  ServerStats stats({"Generate"});
  stats.OnTokens(1);
  stats.OnTokens(4);
  EXPECT_EQ(Read(stats).value("generation_tokens_total"), 5);
  EXPECT_EQ(Read(stats).count("request_generation_tokens"), 0u);
  stats.OnAnswered(5);
  stats.OnAnswered(0);
  EXPECT_EQ(Read(stats).count("request_generation_tokens"), 2u);
  EXPECT_EQ(Read(stats).sum("request_generation_tokens"), 5);
}

TEST(ServerStatsTest, CountsRejectionsByReason) {
  ServerStats stats({"Generate"});
  stats.OnHandled("Generate", WithReason(absl::ResourceExhaustedError(""), "QUEUE_FULL"));
  stats.OnHandled("Generate", WithReason(absl::UnavailableError(""), "LOADING"));
  stats.OnHandled("Generate", WithReason(absl::UnavailableError(""), "DRAINING"));
  stats.OnHandled("Generate", InvalidFields({{"prompt", "is empty"}}));
  stats.OnHandled("Generate", WithReason(absl::NotFoundError(""), "MODEL_NOT_FOUND"));
  stats.OnHandled("Generate", absl::InternalError("a fault is no rejection"));
  stats.OnHandled("Generate", absl::DeadlineExceededError("nor is this"));
  const RecordedStats recorded = Read(stats);
  EXPECT_EQ(recorded.value("requests_rejected_total{reason=\"queue_full\"}"), 1);
  EXPECT_EQ(recorded.value("requests_rejected_total{reason=\"loading\"}"), 1);
  EXPECT_EQ(recorded.value("requests_rejected_total{reason=\"draining\"}"), 1);
  EXPECT_EQ(recorded.value("requests_rejected_total{reason=\"invalid\"}"), 2);
}

}  // namespace
}  // namespace pregate
