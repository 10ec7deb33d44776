// Statuses on the wire: how an absl::Status becomes a grpc::Status with google.rpc details.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "core/base/clock.h"
#include "grpcpp/support/status.h"

namespace pregate {

// A field of a request and what is wrong with it.
struct FieldViolation {
  std::string field;        // its path in the message: "sampling.top_p"
  std::string description;  // value and limit: "2 is not in (0, 1]"
};

// INVALID_ARGUMENT that names all violations, of which there is at least one.
absl::Status InvalidFields(const std::vector<FieldViolation>& violations);

// `status` with google.rpc.ErrorInfo.reason, UPPER_SNAKE. Without one the code's name stands in.
absl::Status WithReason(absl::Status status, absl::string_view reason);
std::string ReasonOf(const absl::Status& status);

// `status` with google.rpc.RetryInfo: when trying again makes sense.
absl::Status WithRetryDelay(absl::Status status, Duration delay);

// The same code and message, and in grpc-status-details-bin a google.rpc.Status with ErrorInfo
// (domain "pregate") and whatever the functions above have attached. The message is cut at 1,024
// bytes, since it travels in a header.
grpc::Status ToGrpcStatus(const absl::Status& status);

// "OK", "INVALID_ARGUMENT" …: gRPC's own spelling.
absl::string_view CodeName(grpc::StatusCode code);

}  // namespace pregate
