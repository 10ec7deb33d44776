#include "server/status.h"

#include <chrono>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace pregate {
namespace {

constexpr char kErrorInfoUrl[] = "type.googleapis.com/google.rpc.ErrorInfo";
constexpr char kDomain[] = "pregate";
constexpr size_t kMaxMessageBytes = 1024;

template <typename Detail>
void Attach(absl::Status& status, const Detail& detail) {
  status.SetPayload(absl::StrCat("type.googleapis.com/", detail.GetTypeName()),
                    absl::Cord(detail.SerializeAsString()));
}

google::rpc::ErrorInfo InfoOf(const absl::Status& status) {
  google::rpc::ErrorInfo info;
  if (const auto payload = status.GetPayload(kErrorInfoUrl); payload.has_value()) {
    info.ParseFromString(std::string(*payload));
  } else {
    info.set_reason(absl::StatusCodeToString(status.code()));
  }
  info.set_domain(kDomain);
  return info;
}

// The first `limit` bytes of `text`, shortened further so that no UTF-8 character is cut.
std::string Shortened(absl::string_view text, size_t limit) {
  if (text.size() <= limit) return std::string(text);
  while (limit > 0 && (static_cast<unsigned char>(text[limit]) & 0xc0) == 0x80) --limit;
  return std::string(text.substr(0, limit));
}

}  // namespace

absl::Status InvalidFields(const std::vector<FieldViolation>& violations) {
  google::rpc::BadRequest bad_request;
  for (const FieldViolation& violation : violations) {
    auto* const wire = bad_request.add_field_violations();
    wire->set_field(violation.field);
    wire->set_description(violation.description);
  }
  absl::Status status = absl::InvalidArgumentError(
      absl::StrJoin(violations, "; ", [](std::string* out, const FieldViolation& violation) {
        absl::StrAppend(out, violation.field, ": ", violation.description);
      }));
  Attach(status, bad_request);
  return WithReason(std::move(status), "INVALID_FIELD");
}

absl::Status WithReason(absl::Status status, absl::string_view reason) {
  google::rpc::ErrorInfo info;
  info.set_reason(std::string(reason));
  Attach(status, info);
  return status;
}

std::string ReasonOf(const absl::Status& status) { return InfoOf(status).reason(); }

absl::Status WithRetryDelay(absl::Status status, Duration delay) {
  const auto nanoseconds = std::chrono::duration_cast<std::chrono::nanoseconds>(delay).count();
  google::rpc::RetryInfo retry;
  retry.mutable_retry_delay()->set_seconds(nanoseconds / 1'000'000'000);
  retry.mutable_retry_delay()->set_nanos(static_cast<int32_t>(nanoseconds % 1'000'000'000));
  Attach(status, retry);
  return status;
}

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const auto code = static_cast<grpc::StatusCode>(status.code());  // the same numbers
  const std::string message = Shortened(status.message(), kMaxMessageBytes);
  google::rpc::Status wire;
  wire.set_code(code);
  wire.set_message(message);
  wire.add_details()->PackFrom(InfoOf(status));
  status.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) {
    if (url == kErrorInfoUrl) return;
    auto* const detail = wire.add_details();
    detail->set_type_url(std::string(url));
    detail->set_value(std::string(payload));
  });
  return grpc::Status(code, message, wire.SerializeAsString());
}

absl::string_view CodeName(grpc::StatusCode code) {
  constexpr absl::string_view kNames[] = {"OK",
                                          "CANCELLED",
                                          "UNKNOWN",
                                          "INVALID_ARGUMENT",
                                          "DEADLINE_EXCEEDED",
                                          "NOT_FOUND",
                                          "ALREADY_EXISTS",
                                          "PERMISSION_DENIED",
                                          "RESOURCE_EXHAUSTED",
                                          "FAILED_PRECONDITION",
                                          "ABORTED",
                                          "OUT_OF_RANGE",
                                          "UNIMPLEMENTED",
                                          "INTERNAL",
                                          "UNAVAILABLE",
                                          "DATA_LOSS",
                                          "UNAUTHENTICATED"};
  return code >= 0 && static_cast<size_t>(code) < std::size(kNames) ? kNames[code] : "UNKNOWN";
}

}  // namespace pregate
