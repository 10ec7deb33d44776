// The tools that people bring along: grpcurl, grpc-health-probe, promtool.
#include <cstdlib>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "httplib.h"
#include "tests/integration/pregated/daemon.h"

namespace pregate {
namespace {

using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::IsSupersetOf;

// The path of a program that `make setup` or the system's packages bring; "" without it.
std::string FindTool(const std::string& name) {
  const auto variable = [](const char* key) {
    const char* const value = std::getenv(key);
    return std::string(value != nullptr ? value : "");
  };
  std::vector<std::string> folders = absl::StrSplit(variable("PATH"), ':');
  const std::string deps = variable("PREGATE_DEPS");
  folders.insert(folders.begin(),
                 (deps.empty() ? variable("HOME") + "/.cache/pregate/deps" : deps) + "/bin");
  for (const std::string& folder : folders) {
    const std::string path = absl::StrCat(folder, "/", name);
    if (std::filesystem::exists(path)) return path;
  }
  return "";
}

class ToolsTest : public ::testing::Test {
 protected:
  Daemon daemon_{ShippedModel("switch-mini")};
};

TEST_F(ToolsTest, GrpcurlListsTheServices) {
  const std::string grpcurl = FindTool("grpcurl");
  if (grpcurl.empty()) GTEST_SKIP() << "grpcurl is missing";
  const ProgramResult result = RunProgram({grpcurl, "-plaintext", daemon_.address(), "list"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  const std::vector<std::string> lines = absl::StrSplit(result.out, '\n');
  EXPECT_THAT(
      lines,
      IsSupersetOf(
          {"pregate.v1.InferenceService", "pregate.v1.AdminService", "grpc.health.v1.Health"}));
}

TEST_F(ToolsTest, GrpcurlStreamsGenerate) {
  const std::string grpcurl = FindTool("grpcurl");
  if (grpcurl.empty()) GTEST_SKIP() << "grpcurl is missing";
  const ProgramResult result =
      RunProgram({grpcurl,
                  "-plaintext",
                  "-d",
                  R"({"prompt": "Once", "stopping": {"maxTokens": 5, "ignoreEos": true}})",
                  daemon_.address(),
                  "pregate.v1.InferenceService/Generate"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out,
              AllOf(ContainsRegex("\"(token_ids|tokenIds)\""),
                    HasSubstr("\"text\""),
                    HasSubstr("FINISH_REASON_LENGTH"),
                    ContainsRegex("\"(completion_tokens|completionTokens)\": 5")));
}

TEST_F(ToolsTest, GrpcHealthProbeFindsItServing) {
  const std::string probe = FindTool("grpc-health-probe");
  if (probe.empty()) GTEST_SKIP() << "grpc-health-probe is missing";
  for (const char* service : {"", "pregate.v1.InferenceService", "liveness", "readiness"}) {
    const ProgramResult result = RunProgram(
        {probe, absl::StrCat("-addr=", daemon_.address()), absl::StrCat("-service=", service)});
    EXPECT_EQ(result.exit_code, 0) << service << ": " << result.err;
    EXPECT_THAT(result.out + result.err, HasSubstr("SERVING"));
  }
}

TEST_F(ToolsTest, PromtoolAcceptsTheMetrics) {
  const std::string promtool = FindTool("promtool");
  if (promtool.empty()) GTEST_SKIP() << "promtool is missing";
  ASSERT_TRUE(Stream(daemon_, Ask("Once", 5)).Finish().status.ok());
  const httplib::Result scraped =
      httplib::Client("http://" + daemon_.http_address()).Get("/metrics");
  ASSERT_TRUE(scraped);
  EXPECT_THAT(scraped->body, HasSubstr("pregate_generation_tokens_total{model=\"switch-mini\"} 5"));
  const ProgramResult result = RunProgram({promtool, "check", "metrics"}, scraped->body);
  EXPECT_EQ(result.exit_code, 0) << result.out << result.err;
}

}  // namespace
}  // namespace pregate
