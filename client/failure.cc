#include "client/failure.h"

#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace pregate {
namespace {

// The google.rpc details that our server sends.
struct Details {
  std::vector<std::string> violations;  // "field: what is wrong"
  std::string reason;                   // "QUEUE_FULL"
  absl::Duration retry_delay;           // zero: none given
};

Details ParseDetails(const grpc::Status& status) {
  Details details;
  google::rpc::Status wire;
  if (!wire.ParseFromString(status.error_details())) return details;
  for (const google::protobuf::Any& any : wire.details()) {
    google::rpc::BadRequest bad_request;
    google::rpc::ErrorInfo info;
    google::rpc::RetryInfo retry;
    if (any.UnpackTo(&bad_request)) {
      for (const auto& violation : bad_request.field_violations()) {
        // A message that already tells it is not repeated.
        if (absl::StrContains(status.error_message(), violation.description()) &&
            absl::StrContains(status.error_message(), violation.field())) {
          continue;
        }
        details.violations.push_back(
            absl::StrCat(violation.field(), ": ", violation.description()));
      }
    } else if (any.UnpackTo(&info)) {
      details.reason = info.reason();
    } else if (any.UnpackTo(&retry)) {
      details.retry_delay = absl::Seconds(retry.retry_delay().seconds()) +
                            absl::Nanoseconds(retry.retry_delay().nanos());
    }
  }
  return details;
}

// What the gRPC library says of a server that it could not connect to.
bool IsUnreachable(const grpc::Status& status) {
  return status.error_code() == grpc::StatusCode::UNAVAILABLE && status.error_details().empty() &&
         (absl::StartsWith(status.error_message(), "failed to connect to all addresses") ||
          absl::StartsWith(status.error_message(), "DNS resolution failed"));
}

// Of an unreachable server: whether somebody is there who does not like how we began.
bool MayBeTls(const grpc::Status& status) {
  for (const char* sign : {"Ssl handshake failed", "Socket closed", "Connection reset"}) {
    if (absl::StrContains(status.error_message(), sign)) return true;
  }
  return false;
}

// The innermost cause: "Connection refused" of "…; last error: …: Failed to connect …: Connection
// refused".
absl::string_view InnermostCause(absl::string_view message) {
  // "error:0A000086:SSL routines::certificate verify failed"
  constexpr absl::string_view kOpenSsl = "SSL routines::";
  if (const size_t found = message.rfind(kOpenSsl); found != absl::string_view::npos)
    return message.substr(found + kOpenSsl.size());
  const size_t colon = message.rfind(": ");
  return colon == absl::string_view::npos ? message : message.substr(colon + 2);
}

std::string WhatHappened(const grpc::Status& status, const CallDescription& call) {
  const std::string& message = status.error_message();
  if (IsUnreachable(status)) {
    return absl::StrCat("cannot reach ", call.server, ": ", InnermostCause(message));
  }
  const bool is_ours = !status.error_details().empty();
  switch (status.error_code()) {
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      if (is_ours) break;
      return absl::StrCat(call.server,
                          " did not finish ",
                          call.method,
                          " within ",
                          absl::FormatDuration(call.deadline));
    case grpc::StatusCode::UNIMPLEMENTED:
      if (is_ours) break;
      return absl::StrCat(call.server, " does not offer ", call.method);
    case grpc::StatusCode::UNAVAILABLE:
      if (is_ours) break;
      return absl::StrCat("the connection to ", call.server, " was lost: ", message);
    default:
      break;
  }
  if (message.empty()) return absl::StrCat(call.method, " failed, the server does not say why");
  return message;
}

// "" when there is nothing that helps.
std::string WhatNext(const grpc::Status& status, const Details& details, absl::string_view method) {
  if (IsUnreachable(status) && MayBeTls(status)) {
    return "a server with TLS wants --tls-ca FILE or --tls, and may ask for --tls-cert and "
           "--tls-key";
  }
  if (IsUnreachable(status)) {
    return "start pregated, name another server with --server, or wait for it with --wait 30s";
  }
  if (details.retry_delay > absl::ZeroDuration()) {
    return absl::StrCat("try again in ", absl::FormatDuration(details.retry_delay));
  }
  switch (status.error_code()) {
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return "--deadline allows more";
    case grpc::StatusCode::NOT_FOUND:
      if (absl::StartsWith(method, "Health.")) return "liveness and readiness are known everywhere";
      return "`pregate models` lists what is served";
    case grpc::StatusCode::UNAUTHENTICATED:
      return "--token-file or the variable PREGATE_TOKEN gives one";
    case grpc::StatusCode::UNIMPLEMENTED:
      return "`pregate stats` shows its version";
    case grpc::StatusCode::UNAVAILABLE:
      return "try again later";
    default:
      return "";
  }
}

}  // namespace

absl::Status DescribeFailure(const grpc::Status& status, const CallDescription& call) {
  const auto code = static_cast<absl::StatusCode>(status.error_code());
  const Details details = ParseDetails(status);
  const std::string code_name = absl::StatusCodeToString(code);
  std::string text = WhatHappened(status, call);
  if (!details.violations.empty()) {
    absl::StrAppend(&text, "; ", absl::StrJoin(details.violations, "; "));
  }
  absl::StrAppend(&text, " (", code_name);
  if (!details.reason.empty() && details.reason != code_name)
    absl::StrAppend(&text, ", ", details.reason);
  absl::StrAppend(&text, ")");
  const std::string next = WhatNext(status, details, call.method);
  if (!next.empty()) absl::StrAppend(&text, "; ", next);
  return absl::Status(code, text);
}

}  // namespace pregate
