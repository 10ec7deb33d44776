// What a client may send that is wrong, through real gRPC.
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/test_server.h"

namespace pregate {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kInference[] = "/pregate.v1.InferenceService/";

TEST(BadInputTest, NamesTheFieldAtFault) {
  TestServer server;
  using Wire = v1::GenerateRequest;
  const std::pair<const char*, std::function<void(Wire&)>> cases[] = {
      {"prompt", [](Wire& w) { w.set_prompt(""); }},
      {"prompt", [](Wire& w) { w.clear_prompt(); }},
      {"prompt", [](Wire& w) { w.set_prompt(std::string(300, 'x')); }},
      {"stopping.max_tokens", [](Wire& w) { w.mutable_stopping()->set_max_tokens(254); }},
      {"token_ids.ids", [](Wire& w) { w.mutable_token_ids()->add_ids(300); }},
      {"sampling.temperature", [](Wire& w) { w.mutable_sampling()->set_temperature(-1); }},
      {"sampling.top_p", [](Wire& w) { w.mutable_sampling()->set_top_p(2); }},
      {"sampling.min_p", [](Wire& w) { w.mutable_sampling()->set_min_p(0.1F); }},
      {"n", [](Wire& w) { w.set_n(2); }},
  };
  for (const auto& [field, spoil] : cases) {
    Wire request = Ask("abc", 3);
    spoil(request);
    grpc::ClientContext context;
    v1::CompleteResponse response;
    for (const grpc::Status& status : {Generate(server, request).status,
                                       server.inference().Complete(&context, request, &response)}) {
      EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << field;
      EXPECT_EQ(DetailsOf(status).reason, "INVALID_FIELD") << field;
      EXPECT_EQ(DetailsOf(status).domain, "pregate");
      EXPECT_THAT(DetailsOf(status).fields, ElementsAre(field));
    }
  }
  EXPECT_EQ(server.runner().steps().size(), 0u);
  EXPECT_EQ(server.Metric("pregate_requests_rejected_total{reason=\"invalid\"}"),
            2.0 * std::size(cases));
  EXPECT_TRUE(Generate(server, Ask("abc", 3)).status.ok());
}

TEST(BadInputTest, AnotherModelIsNotFound) {
  TestServer server;
  v1::GenerateRequest generate = Ask("the", 1);
  generate.set_model("another");
  v1::TokenizeRequest tokenize;
  tokenize.set_model("another");
  v1::DetokenizeRequest detokenize;
  detokenize.set_model("another");
  v1::GetModelRequest get_model;
  get_model.set_model("another");
  const std::pair<const char*, std::string> cases[] = {
      {"Generate", generate.SerializeAsString()},
      {"Complete", generate.SerializeAsString()},
      {"Tokenize", tokenize.SerializeAsString()},
      {"Detokenize", detokenize.SerializeAsString()},
      {"GetModel", get_model.SerializeAsString()},
  };
  for (const auto& [method, bytes] : cases) {
    const grpc::Status status = CallRaw(server, absl::StrCat(kInference, method), bytes).first;
    EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND) << method;
    EXPECT_EQ(DetailsOf(status).reason, "MODEL_NOT_FOUND") << method;
  }
}

TEST(BadInputTest, UndecodableBytesAreInvalid) {
  TestServer server;
  for (const char* method : {"Generate", "Complete", "Tokenize", "Detokenize", "GetModel"}) {
    // A field of ten bytes of which one is there; a wire type that does not exist; a lone tag.
    for (const std::string bytes : {"\x0a\x0a"
                                    "x",
                                    "\x0f",
                                    "\x08"}) {
      const grpc::Status status = CallRaw(server, absl::StrCat(kInference, method), bytes).first;
      EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << method;
      EXPECT_EQ(DetailsOf(status).reason, "UNDECODABLE") << method;
      EXPECT_THAT(status.error_message(), HasSubstr("undecodable bytes"));
    }
  }
}

TEST(BadInputTest, AStringThatIsNotUtf8IsInvalid) {
  TestServer server;
  // GenerateRequest.prompt is field 2, TokenizeRequest.text too; two bytes, no UTF-8.
  for (const char* method : {"Generate", "Complete", "Tokenize"}) {
    const grpc::Status status =
        CallRaw(server, absl::StrCat(kInference, method), "\x12\x02\xc3\x28").first;
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << method;
    EXPECT_EQ(DetailsOf(status).reason, "UNDECODABLE") << method;
    EXPECT_THAT(status.error_message(), HasSubstr("UTF-8"));
  }
}

TEST(BadInputTest, UnknownFieldsAreIgnored) {
  TestServer server;
  // Field 1000, a varint.
  const std::string bytes = Ask("the", 1).SerializeAsString() + "\xc0\x3e\x01";
  EXPECT_TRUE(CallRaw(server, absl::StrCat(kInference, "Complete"), bytes).first.ok());
}

TEST(BadInputTest, AMessageOfNineMebibytesIsRefused) {
  TestServer server;
  v1::TokenizeRequest request;
  request.set_text(std::string(9 << 20, 'x'));
  const grpc::Status status =
      CallRaw(server, absl::StrCat(kInference, "Tokenize"), request.SerializeAsString()).first;
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_TRUE(Generate(server, Ask("the", 1)).status.ok());
}

TEST(BadInputTest, ATextThatCannotFitIsRefusedUntokenized) {
  TestServer server;
  v1::TokenizeRequest request;
  request.set_text(std::string(1 << 20, 'x'));
  const grpc::Status status =
      CallRaw(server, absl::StrCat(kInference, "Tokenize"), request.SerializeAsString()).first;
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(DetailsOf(status).fields, ElementsAre("text"));
}

TEST(BadInputTest, AnIdWithoutATokenCannotBeDetokenized) {
  TestServer server;
  v1::DetokenizeRequest request;
  request.add_token_ids(12345);
  const grpc::Status status =
      CallRaw(server, absl::StrCat(kInference, "Detokenize"), request.SerializeAsString()).first;
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(DetailsOf(status).fields, ElementsAre("token_ids"));
  EXPECT_THAT(status.error_message(), HasSubstr("12345"));
}

}  // namespace
}  // namespace pregate
