#include "client/failure.h"

#include <string>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "gtest/gtest.h"

namespace pregate {
namespace {

using grpc::StatusCode;

// As pregated sends it: an ErrorInfo, and what else there is.
class Detailed {
 public:
  explicit Detailed(const std::string& reason) {
    google::rpc::ErrorInfo info;
    info.set_reason(reason);
    details_.add_details()->PackFrom(info);
  }
  Detailed& Violation(const std::string& field, const std::string& description) {
    google::rpc::BadRequest bad_request;
    auto* const violation = bad_request.add_field_violations();
    violation->set_field(field);
    violation->set_description(description);
    details_.add_details()->PackFrom(bad_request);
    return *this;
  }
  Detailed& RetryAfter(int64_t seconds, int32_t nanos) {
    google::rpc::RetryInfo retry;
    retry.mutable_retry_delay()->set_seconds(seconds);
    retry.mutable_retry_delay()->set_nanos(nanos);
    details_.add_details()->PackFrom(retry);
    return *this;
  }
  grpc::Status Status(StatusCode code, const std::string& message) {
    return grpc::Status(code, message, details_.SerializeAsString());
  }

 private:
  google::rpc::Status details_;
};

std::string Describe(const grpc::Status& status) {
  const absl::Status described = DescribeFailure(
      status, {.server = "host:1", .method = "Generate", .deadline = absl::Seconds(90)});
  EXPECT_EQ(static_cast<int>(described.code()), static_cast<int>(status.error_code()));
  return std::string(described.message());
}

TEST(DescribeFailureTest, ViolationsAndReason) {
  EXPECT_EQ(Describe(Detailed("INVALID_REQUEST")
                         .Violation("sampling.top_p", "2 is above 1")
                         .Violation("n", "9 is above 8")
                         .Status(StatusCode::INVALID_ARGUMENT, "invalid request")),
            "invalid request; sampling.top_p: 2 is above 1; n: 9 is above 8 (INVALID_ARGUMENT, "
            "INVALID_REQUEST)");
}

TEST(DescribeFailureTest, AViolationThatTheMessageTellsIsNotRepeated) {
  EXPECT_EQ(Describe(Detailed("INVALID_REQUEST")
                         .Violation("n", "9 is above 8")
                         .Status(StatusCode::INVALID_ARGUMENT, "n: 9 is above 8")),
            "n: 9 is above 8 (INVALID_ARGUMENT, INVALID_REQUEST)");
}

TEST(DescribeFailureTest, AReasonThatIsTheCodeIsNotRepeated) {
  EXPECT_EQ(Describe(Detailed("INTERNAL").Status(StatusCode::INTERNAL, "a fault")),
            "a fault (INTERNAL)");
}

TEST(DescribeFailureTest, WhenToComeBack) {
  EXPECT_EQ(Describe(Detailed("QUEUE_FULL")
                         .RetryAfter(1, 500'000'000)
                         .Status(StatusCode::RESOURCE_EXHAUSTED, "256 of 256 requests wait")),
            "256 of 256 requests wait (RESOURCE_EXHAUSTED, QUEUE_FULL); try again in 1.5s");
  EXPECT_EQ(Describe(Detailed("DRAINING").Status(StatusCode::UNAVAILABLE, "shutting down")),
            "shutting down (UNAVAILABLE, DRAINING); try again later");
}

TEST(DescribeFailureTest, ADeadlineOfOursAndOneOfTheServer) {
  EXPECT_EQ(Describe(grpc::Status(StatusCode::DEADLINE_EXCEEDED, "Deadline Exceeded")),
            "host:1 did not finish Generate within 1m30s (DEADLINE_EXCEEDED); --deadline allows "
            "more");
  EXPECT_EQ(
      Describe(Detailed("DEADLINE").Status(StatusCode::DEADLINE_EXCEEDED, "late in the queue")),
      "late in the queue (DEADLINE_EXCEEDED, DEADLINE); --deadline allows more");
}

TEST(DescribeFailureTest, WhatTheGrpcLibrarySays) {
  EXPECT_EQ(Describe(grpc::Status(StatusCode::UNAVAILABLE,
                                  "failed to connect to all addresses; last error: UNKNOWN: "
                                  "ipv4:127.0.0.1:1: Failed to connect to remote host: Connection "
                                  "refused")),
            "cannot reach host:1: Connection refused (UNAVAILABLE); start pregated, name another "
            "server with --server, or wait for it with --wait 30s");
  EXPECT_EQ(Describe(grpc::Status(StatusCode::UNAVAILABLE,
                                  "failed to connect to all addresses; last error: UNKNOWN: "
                                  "ipv4:127.0.0.1:1: Ssl handshake failed: SSL_ERROR_SSL: "
                                  "error:0A000086:SSL routines::certificate verify failed")),
            "cannot reach host:1: certificate verify failed (UNAVAILABLE); a server with TLS wants "
            "--tls-ca FILE or --tls, and may ask for --tls-cert and --tls-key");
  EXPECT_EQ(Describe(grpc::Status(StatusCode::UNAVAILABLE, "Socket closed")),
            "the connection to host:1 was lost: Socket closed (UNAVAILABLE); try again later");
  EXPECT_EQ(Describe(grpc::Status(StatusCode::UNIMPLEMENTED, "")),
            "host:1 does not offer Generate (UNIMPLEMENTED); `pregate stats` shows its version");
}

TEST(DescribeFailureTest, WhatAServerThatWantsATokenIsGiven) {
  EXPECT_EQ(Describe(Detailed("TOKEN_MISSING").Status(StatusCode::UNAUTHENTICATED, "a token!")),
            "a token! (UNAUTHENTICATED, TOKEN_MISSING); --token-file or the variable PREGATE_TOKEN "
            "gives one");
}

TEST(DescribeFailureTest, ASilentServerAndUnreadableDetails) {
  EXPECT_EQ(Describe(grpc::Status(StatusCode::INTERNAL, "")),
            "Generate failed, the server does not say why (INTERNAL)");
  EXPECT_EQ(Describe(grpc::Status(StatusCode::INTERNAL, "a fault", "\xff\xff\xff")),
            "a fault (INTERNAL)");
}

}  // namespace
}  // namespace pregate
