#include "server/config.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "gmock/gmock.h"
#include "google/protobuf/descriptor.h"
#include "gtest/gtest.h"
#include "pregate/v1/config.pb.h"
#include "tests/support/temp_folder.h"

namespace pregate {
namespace {

using ::testing::HasSubstr;

class ConfigTest : public ::testing::Test {
 protected:
  absl::Status Apply(const std::string& text) {
    return ApplyConfigFile(folder_.Write("config.textproto", text), ServerFlags(options_));
  }
  // What Apply says, behind the file's path.
  std::string Complaint(const std::string& text) {
    const absl::Status status = Apply(text);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return absl::StrReplaceAll(status.message(), {{folder_ / "config.textproto", "FILE"}});
  }

  const TempFolder folder_;
  ServerOptions options_;
};

TEST_F(ConfigTest, EveryFlagIsAFieldAndEveryFieldAFlag) {
  std::vector<std::string> names;
  for (const Flag& flag : ServerFlags(options_))
    names.push_back(absl::StrReplaceAll(flag.name, {{"-", "_"}}));
  std::vector<std::string> fields;
  const google::protobuf::Descriptor& config = *v1::Config::descriptor();
  for (int i = 0; i < config.field_count(); ++i) fields.push_back(config.field(i)->name());
  EXPECT_THAT(names, ::testing::UnorderedElementsAreArray(fields));
}

TEST_F(ConfigTest, AppliesEachFieldThroughItsFlag) {
  const absl::Status status = Apply(R"(
      # As an operator writes it.
      model: "models/switch-mini"
      max_running: 7
      listen: "127.0.0.1:1234"
      drain_timeout: "1m30s"
      insecure: true
      log_level: "warning"
      log_format: "json")");
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(options_.engine.model, "models/switch-mini");
  EXPECT_EQ(options_.engine.max_running, 7u);
  EXPECT_EQ(options_.listen, "127.0.0.1:1234");
  EXPECT_EQ(options_.drain_timeout, std::chrono::seconds(90));
  EXPECT_TRUE(options_.insecure);
  EXPECT_EQ(options_.log_level, LogLevel::kWarning);
  EXPECT_EQ(options_.log_format, LogFormat::kJson);
  EXPECT_EQ(options_.http_listen, ServerOptions().http_listen) << "what is not named stays";
}

TEST_F(ConfigTest, AFieldMaySayTheOppositeOfASwitch) {
  options_.insecure = true;
  ASSERT_TRUE(Apply("insecure: false").ok());
  EXPECT_FALSE(options_.insecure);
}

TEST_F(ConfigTest, NamesLineAndFieldOfWhatIsWrong) {
  EXPECT_THAT(Complaint("model: \"m\"\nbogus: 1"), HasSubstr("FILE:2:"));
  EXPECT_THAT(Complaint("model: \"m\"\nbogus: 1"), HasSubstr("bogus"));
  EXPECT_THAT(Complaint("max_running: \"many\""), HasSubstr("FILE:1:"));
  EXPECT_THAT(Complaint("max_running: -1"), HasSubstr("FILE:1:"));
  EXPECT_THAT(Complaint("model: \"a\" model: \"b\""), HasSubstr("model"));
  EXPECT_THAT(Complaint("model {"), HasSubstr("FILE:1:"));
  EXPECT_EQ(Complaint("model: \"m\"\n\nmax_running: 0").rfind("FILE:3: max_running: '0' is not", 0),
            0u);
  EXPECT_EQ(Complaint("drain_timeout: \"soon\""),
            "FILE:1: drain_timeout: 'soon' is not a duration from 0s to 24h, such as 30s or 2m");
  EXPECT_THAT(Complaint("drain_timeout: \"-1s\""), HasSubstr("'-1s' is not a duration"));
  EXPECT_THAT(Complaint("drain_timeout: \"25h\""), HasSubstr("'25h' is not a duration"));
  EXPECT_THAT(Complaint("log_level: \"loud\""), HasSubstr("FILE:1: log_level: log level 'loud'"));
  EXPECT_THAT(Complaint("dtype: \"float8\""), HasSubstr("FILE:1: dtype: 'float8'"));
}

TEST_F(ConfigTest, NamesAFileThatCannotBeRead) {
  const absl::Status missing = ApplyConfigFile(folder_ / "nothing", ServerFlags(options_));
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(missing.message(),
            absl::StrCat(folder_ / "nothing", ": cannot be read: No such file or directory"));
  const absl::Status folder = ApplyConfigFile(folder_.path(), ServerFlags(options_));
  EXPECT_EQ(folder.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(folder.message(), absl::StrCat(folder_.path(), ": is a folder, not a file"));
}

TEST_F(ConfigTest, AcceptsTheDefaultsWithAModel) {
  EXPECT_THAT(std::string(ValidateOptions(options_).message()), HasSubstr("--model"));
  options_.engine.model = "m";
  EXPECT_TRUE(ValidateOptions(options_).ok());
}

TEST_F(ConfigTest, ListensBeyondLoopbackOnlyWhenTold) {
  options_.engine.model = "m";
  for (const char* host : {"0.0.0.0", "[::]", "192.0.2.1", "example.org", "127.evil.org"}) {
    options_.listen = absl::StrCat(host, ":50051");
    EXPECT_THAT(std::string(ValidateOptions(options_).message()), HasSubstr("--insecure")) << host;
    options_.insecure = true;
    EXPECT_TRUE(ValidateOptions(options_).ok()) << host;
    options_.insecure = false;
  }
  for (const char* host : {"127.0.0.1", "127.8.9.10", "[::1]", "localhost"}) {
    options_.listen = absl::StrCat(host, ":50051");
    EXPECT_TRUE(ValidateOptions(options_).ok()) << host;
  }
  options_.http_listen = "0.0.0.0:8002";
  EXPECT_THAT(std::string(ValidateOptions(options_).message()), HasSubstr("--http-listen 0.0.0.0"));
}

TEST_F(ConfigTest, WithTlsListensAnywhereForCallsButNotForMetrics) {
  options_.engine.model = "m";
  options_.tls.certificate = "server.pem";
  EXPECT_EQ(ValidateOptions(options_).message(),
            "TLS needs both --tls-cert and --tls-key: --tls-key is missing");
  options_.tls.key = "server.key";
  options_.listen = "0.0.0.0:50051";
  EXPECT_TRUE(ValidateOptions(options_).ok());
  options_.http_listen = "0.0.0.0:8002";
  EXPECT_EQ(ValidateOptions(options_).message(),
            "--http-listen 0.0.0.0:8002 can be reached from other machines without TLS: listen on "
            "127.0.0.1, or say --insecure");
  options_ = ServerOptions();
  options_.engine.model = "m";
  options_.tls.client_ca = "clients.pem";
  EXPECT_EQ(ValidateOptions(options_).message(),
            "TLS needs both --tls-cert and --tls-key: --tls-cert is missing");
}

TEST_F(ConfigTest, SaysHowToListenBeyondLoopback) {
  options_.engine.model = "m";
  options_.listen = "0.0.0.0:50051";
  EXPECT_EQ(ValidateOptions(options_).message(),
            "--listen 0.0.0.0:50051 can be reached from other machines without TLS: listen on "
            "127.0.0.1, give --tls-cert and --tls-key, or say --insecure");
}

TEST_F(ConfigTest, RefusesTheSamePortTwice) {
  options_.engine.model = "m";
  options_.listen = options_.http_listen = "127.0.0.1:4000";
  EXPECT_EQ(ValidateOptions(options_),
            absl::InvalidArgumentError("--listen and --http-listen are both 127.0.0.1:4000"));
  options_.listen = options_.http_listen = "127.0.0.1:0";
  EXPECT_TRUE(ValidateOptions(options_).ok()) << "any two ports";
}

TEST_F(ConfigTest, NamesTheModelAfterItsFolder) {
  const std::string name = std::filesystem::path(folder_.path()).filename();
  EngineOptions& engine = options_.engine;
  for (const std::string& model :
       {folder_.path(), folder_ / "", folder_ / ".", folder_ / "nothing/.."}) {
    engine.model = model;
    EXPECT_EQ(ServedModelName(engine), name) << model;
  }
  engine.served_model_name = "mine";
  EXPECT_EQ(ServedModelName(engine), "mine");
}

TEST_F(ConfigTest, ParsesAddresses) {
  EXPECT_EQ(ParseAddress("127.0.0.1:80")->host, "127.0.0.1");
  EXPECT_EQ(ParseAddress("127.0.0.1:80")->port, 80);
  EXPECT_EQ(ParseAddress("[::1]:0")->host, "::1");
  EXPECT_EQ(ParseAddress("localhost:65535")->port, 65535);
  for (const char* wrong :
       {"", "localhost", ":80", "[]:80", "host:", "host:x", "host:65536", "host:-1"})
    EXPECT_EQ(ParseAddress(wrong).status().code(), absl::StatusCode::kInvalidArgument) << wrong;
}

}  // namespace
}  // namespace pregate
