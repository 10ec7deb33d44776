// What a failed call says to people.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "grpcpp/support/status.h"

namespace pregate {

// The call that failed.
struct CallDescription {
  std::string server;                                  // HOST:PORT
  absl::string_view method;                            // "Generate"
  absl::Duration deadline = absl::InfiniteDuration();  // from its start
};

// `status`, not OK, under the same code with a message of one line: what happened, the field
// violations and the reason from its google.rpc details, the code, and what to do next.
absl::Status DescribeFailure(const grpc::Status& status, const CallDescription& call);

}  // namespace pregate
