#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "nlohmann/json.hpp"
#include "tests/integration/client/client_test.h"

namespace pregate {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

TEST(HealthTest, ExitsOneUnlessServing) {
  ScriptedServer server;
  ProgramResult result = RunProgram(Pregate(server, {"health"}));
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.out, "SERVING\n");

  server.SetHealth("", false);
  server.SetHealth("liveness", true);
  result = RunProgram(Pregate(server, {"health"}));
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_EQ(result.out, "NOT_SERVING\n");
  EXPECT_EQ(result.err, "");

  result = RunProgram(Pregate(server, {"health", "--service", "liveness", "--json"}));
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.out, "{\"status\":\"SERVING\"}\n");

  result = RunProgram(Pregate(server, {"health", "--service", "nothing"}));
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr("(NOT_FOUND); liveness and readiness are known everywhere"));
}

TEST(HealthTest, WatchPrintsEachChange) {
  ScriptedServer server;
  Program program(Pregate(server, {"health", "--watch", "--service", "readiness"}));
  program.WaitForOut("SERVICE_UNKNOWN\n");
  server.SetHealth("readiness", false);
  program.WaitForOut("\nNOT_SERVING\n");
  server.SetHealth("readiness", true);
  EXPECT_EQ(program.WaitForOut("\nSERVING\n"), "SERVICE_UNKNOWN\nNOT_SERVING\nSERVING\n");
}

TEST(HealthTest, WaitsUntilServing) {
  ScriptedServer server;
  server.SetHealth("", false);
  Program watcher(Pregate(server, {"health", "--watch"}));
  Program waiting(Pregate(server, {"--wait", "1m", "health"}));
  watcher.WaitForOut("NOT_SERVING\n");
  server.SetHealth("", true);
  const ProgramResult result = waiting.Wait();
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.out, "SERVING\n");
}

TEST(HealthTest, WaitsNoLongerThanAsked) {
  ScriptedServer server;
  server.SetHealth("", false);
  const ProgramResult result = RunProgram(Pregate(server, {"--wait", "300ms", "models"}));
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(
      result.err,
      StartsWith(absl::StrCat("pregate: ", server.address(), " was not ready within 300ms: ")));
}

TEST(ServerStateTest, ModelsAndStatsAsTablesAndAsJson) {
  ScriptedServer server;
  server.model().set_num_experts(8);
  server.model().set_num_experts_per_token(1);
  EXPECT_THAT(RunProgram(Pregate(server, {"models"})).out, HasSubstr("\nscripted "));
  const auto model = nlohmann::json::parse(RunProgram(Pregate(server, {"models", "--json"})).out);
  EXPECT_EQ(model["name"], "scripted");
  EXPECT_EQ(model["num_experts"], 8);

  EXPECT_THAT(RunProgram(Pregate(server, {"stats"})).out, HasSubstr("3 of 64 requests"));
  const auto stats = nlohmann::json::parse(RunProgram(Pregate(server, {"stats", "--json"})).out);
  EXPECT_EQ(stats["server_info"]["version"], "1.2.3");
  EXPECT_EQ(stats["load"]["requests_running"], 3);
}

TEST(TokenizeTest, IdsGoThereAndBack) {
  ScriptedServer server;
  EXPECT_EQ(RunProgram(Pregate(server, {"tokenize", "abc"})).out, "1 97 98 99\n");
  EXPECT_EQ(RunProgram(Pregate(server, {"tokenize", "--no-special-tokens"}), "abc\n").out,
            "97 98 99\n");
  EXPECT_EQ(RunProgram(Pregate(server, {"tokenize", "a", "--json"})).out,
            "{\"token_ids\":[1,97]}\n");
  EXPECT_EQ(RunProgram(Pregate(server, {"detokenize", "1 97 98"})).out, "^ab\n");
  EXPECT_EQ(RunProgram(Pregate(server, {"detokenize", "--skip-special-tokens"}), "1 97 98\n").out,
            "ab\n");
}

TEST(TokenizeTest, AnUnknownModelIsOneLine) {
  ScriptedServer server;
  server.SetError(grpc::Status(grpc::StatusCode::NOT_FOUND, "model gpt is not served"));
  const ProgramResult result = RunProgram(Pregate(server, {"tokenize", "--model", "gpt", "abc"}));
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_EQ(
      result.err,
      "pregate: model gpt is not served (NOT_FOUND); `pregate models` lists what is served\n");
}

}  // namespace
}  // namespace pregate
