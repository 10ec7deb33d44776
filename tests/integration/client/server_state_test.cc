#include <filesystem>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "nlohmann/json.hpp"
#include "tests/integration/client/client_test.h"
#include "tests/support/temp_folder.h"

namespace pregate {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
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

v1::GetExpertCacheResponse Cache() {
  v1::GetExpertCacheResponse cache;
  cache.set_num_layers(1);
  cache.set_num_experts(8);
  cache.set_slots(2);
  cache.mutable_lookups()->set_hits(3);
  cache.mutable_lookups()->set_misses(1);
  *cache.add_layers()->mutable_lookups() = cache.lookups();
  return cache;
}

TEST(StatsTest, ShowsTheExpertCacheAndItsLayersWhenAsked) {
  ScriptedServer server;
  EXPECT_THAT(RunProgram(Pregate(server, {"stats"})).out, Not(HasSubstr("experts")));
  EXPECT_THAT(RunProgram(Pregate(server, {"stats", "--json"})).out, Not(HasSubstr("expert_cache")));

  server.SetExpertCache(Cache(), "");
  const std::string brief = RunProgram(Pregate(server, {"stats"})).out;
  EXPECT_THAT(brief, HasSubstr("\nexperts      2 slots for 8 experts (25 %)"));
  EXPECT_THAT(brief, Not(HasSubstr("LAYER")));
  EXPECT_THAT(RunProgram(Pregate(server, {"stats", "--layers"})).out,
              HasSubstr("\n0      4         75.0 %  0.0 %  25.0 %\n"));
  const auto stats =
      nlohmann::json::parse(RunProgram(Pregate(server, {"stats", "--layers", "--json"})).out);
  EXPECT_EQ(stats["expert_cache"]["slots"], 2);
  EXPECT_EQ(stats["expert_cache"]["layers"][0]["lookups"]["hits"], "3");
}

TEST(TraceTest, WritesWhatTheServerSends) {
  ScriptedServer server;
  const TempFolder folder;
  const std::string trace("any\0bytes", 9);
  server.SetExpertCache(Cache(), trace);
  ProgramResult result = RunProgram(Pregate(server, {"trace", folder / "trace"}));
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.out, absl::StrCat("9 B in ", folder / "trace", "\n"));
  EXPECT_EQ(ReadFile(folder / "trace"), trace);
  result = RunProgram(Pregate(server, {"trace", folder / "trace", "--json"}));
  EXPECT_EQ(result.out, "{\"bytes\":9}\n");
  EXPECT_EQ(RunProgram(Pregate(server, {"trace"})).exit_code, 2) << "it has to know where to";
}

TEST(TraceTest, LeavesNoFileOfATraceThatDidNotCome) {
  ScriptedServer server;
  const TempFolder folder;
  ProgramResult result = RunProgram(Pregate(server, {"trace", folder / "trace"}));
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, StartsWith("pregate: there is no expert cache (FAILED_PRECONDITION)"));
  server.SetExpertCache(Cache(), "half of it");
  server.SetError(grpc::Status(grpc::StatusCode::INTERNAL, "lost"));
  result = RunProgram(Pregate(server, {"trace", folder / "trace"}));
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, StartsWith("pregate: lost (INTERNAL)"));
  EXPECT_FALSE(std::filesystem::exists(folder / "trace"));

  server.SetError(grpc::Status::OK);
  result = RunProgram(Pregate(server, {"trace", folder / "nowhere/trace"}));
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err,
              StartsWith(absl::StrCat("pregate: cannot write ", folder / "nowhere/trace")));
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
