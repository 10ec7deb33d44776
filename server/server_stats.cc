#include "server/server_stats.h"

#include "core/base/check.h"
#include "server/status.h"

namespace pregate {
namespace {

// The `reason` label of a status that refuses a request; "" when it does not.
std::string RejectionOf(const absl::Status& status) {
  const std::string reason = ReasonOf(status);
  if (reason == "QUEUE_FULL") return "queue_full";
  if (reason == "DRAINING") return "draining";
  if (reason == "LOADING") return "loading";
  return absl::IsInvalidArgument(status) || absl::IsNotFound(status) ? "invalid" : "";
}

}  // namespace

ServerStats::ServerStats(const std::vector<std::string>& methods)
    : request_generation_tokens_(ExponentialBounds(1, 2, 1 << 20)) {
  for (const std::string& method : methods) handled_.try_emplace(method, kCodes);
  for (const char* reason : {"draining", "invalid", "loading", "queue_full"})
    rejected_.try_emplace(reason);
}

void ServerStats::OnHandled(absl::string_view method, const absl::Status& status) {
  const auto counters = handled_.find(std::string(method));
  PREGATE_CHECK(counters != handled_.end(), method);
  counters->second[static_cast<size_t>(status.code())].Add();
  if (const auto rejected = rejected_.find(RejectionOf(status)); rejected != rejected_.end())
    rejected->second.Add();
}

void ServerStats::Visit(StatsVisitor& visitor) const {
  const auto visit_handled =
      [&](absl::string_view name, const char* method_label, const char* code_label) {
        for (const auto& [method, counters] : handled_) {
          for (int code = 0; code < kCodes; ++code) {
            visitor.OnCounter(
                name,
                "Calls answered, by method and status.",
                {{method_label, method},
                 {code_label, std::string(CodeName(static_cast<grpc::StatusCode>(code)))}},
                counters[static_cast<size_t>(code)].value());
          }
        }
      };
  visit_handled("requests_total", "method", "code");
  for (const auto& [reason, counter] : rejected_) {
    visitor.OnCounter("requests_rejected_total",
                      "Requests refused before they reached the engine, by reason.",
                      {{"reason", reason}},
                      counter.value());
  }
  visit_handled("grpc_server_handled_total", "grpc_method", "grpc_code");
  visitor.OnCounter(
      "generation_tokens_total", "Tokens generated and delivered.", {}, generation_tokens_.value());
  visitor.OnHistogram("request_generation_tokens",
                      "Generated tokens of a request.",
                      {},
                      request_generation_tokens_.Read());
  visitor.OnCounter("stream_write_blocked_seconds_total",
                    "Time that streams with more to send waited for a write to finish.",
                    {},
                    write_blocked_seconds_.value());
}

}  // namespace pregate
