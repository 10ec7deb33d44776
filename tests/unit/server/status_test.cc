#include "server/status.h"

#include <chrono>
#include <string>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "gtest/gtest.h"

namespace pregate {
namespace {

google::rpc::Status Details(const grpc::Status& status) {
  google::rpc::Status details;
  EXPECT_TRUE(details.ParseFromString(status.error_details()));
  return details;
}

// The one detail of type T.
template <typename T>
T Detail(const grpc::Status& status) {
  T detail;
  int found = 0;
  const google::rpc::Status details = Details(status);
  for (const google::protobuf::Any& any : details.details()) {
    if (any.UnpackTo(&detail)) ++found;
  }
  EXPECT_EQ(found, 1) << T::descriptor()->full_name();
  return detail;
}

TEST(StatusTest, OkHasNoDetails) {
  const grpc::Status status = ToGrpcStatus(absl::OkStatus());
  EXPECT_TRUE(status.ok());
  EXPECT_EQ(status.error_details(), "");
}

TEST(StatusTest, KeepsCodeAndMessage) {
  for (int code = 1; code <= 16; ++code) {
    const grpc::Status status =
        ToGrpcStatus(absl::Status(static_cast<absl::StatusCode>(code), "what happened"));
    EXPECT_EQ(static_cast<int>(status.error_code()), code);
    EXPECT_EQ(status.error_message(), "what happened");
    EXPECT_EQ(Details(status).code(), code);
    EXPECT_EQ(Details(status).message(), "what happened");
    // Without a reason of its own, the code's name.
    EXPECT_EQ(Detail<google::rpc::ErrorInfo>(status).reason(), CodeName(status.error_code()));
    EXPECT_EQ(Detail<google::rpc::ErrorInfo>(status).domain(), "pregate");
  }
}

TEST(StatusTest, CarriesReasonAndRetryDelay) {
  const absl::Status full =
      WithRetryDelay(WithReason(absl::ResourceExhaustedError("full"), "QUEUE_FULL"),
                     std::chrono::milliseconds(1500));
  EXPECT_EQ(ReasonOf(full), "QUEUE_FULL");
  const grpc::Status status = ToGrpcStatus(full);
  EXPECT_EQ(Detail<google::rpc::ErrorInfo>(status).reason(), "QUEUE_FULL");
  EXPECT_EQ(Detail<google::rpc::RetryInfo>(status).retry_delay().seconds(), 1);
  EXPECT_EQ(Detail<google::rpc::RetryInfo>(status).retry_delay().nanos(), 500'000'000);
}

TEST(StatusTest, NamesEveryFieldAtFault) {
  const absl::Status invalid =
      InvalidFields({{"sampling.top_p", "2 is not in (0, 1]"}, {"prompt", "is empty"}});
  EXPECT_EQ(invalid.message(), "sampling.top_p: 2 is not in (0, 1]; prompt: is empty");
  const auto bad_request = Detail<google::rpc::BadRequest>(ToGrpcStatus(invalid));
  ASSERT_EQ(bad_request.field_violations_size(), 2);
  EXPECT_EQ(bad_request.field_violations(0).field(), "sampling.top_p");
  EXPECT_EQ(bad_request.field_violations(0).description(), "2 is not in (0, 1]");
  EXPECT_EQ(bad_request.field_violations(1).field(), "prompt");
  EXPECT_EQ(ReasonOf(invalid), "INVALID_FIELD");
}

TEST(StatusTest, ALongMessageIsCutBetweenCharacters) {
  // 1,023 bytes and a character of three.
  const grpc::Status status = ToGrpcStatus(absl::InternalError(std::string(1023, 'x') + "日本"));
  EXPECT_EQ(status.error_message(), std::string(1023, 'x'));
  const grpc::Status fits = ToGrpcStatus(absl::InternalError(std::string(1021, 'x') + "日本"));
  EXPECT_EQ(fits.error_message(), std::string(1021, 'x') + "日");
}

TEST(StatusTest, SpellsCodesAsGrpcDoes) {
  EXPECT_EQ(CodeName(grpc::StatusCode::OK), "OK");
  EXPECT_EQ(CodeName(grpc::StatusCode::CANCELLED), "CANCELLED");
  EXPECT_EQ(CodeName(grpc::StatusCode::UNAUTHENTICATED), "UNAUTHENTICATED");
}

}  // namespace
}  // namespace pregate
