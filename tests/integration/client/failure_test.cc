#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "google/protobuf/stubs/logging.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "tests/integration/client/client_test.h"

namespace pregate {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

size_t NumLines(const std::string& text) { return std::count(text.begin(), text.end(), '\n'); }

TEST(FailureTest, AWrongCommandLineIsOneLineAndTwo) {
  const std::vector<std::vector<std::string>> command_lines = {
      {},
      {"nonsense"},
      {"generate", "--bogus", "hi"},
      {"generate", "one", "two"},
      {"generate", "hi", "--file", "x"},
      {"generate", "--max-tokens", "many", "hi"},
      {"generate", "--max-tokens", "-1", "hi"},
      {"generate", "--temperature", "warm", "hi"},
      {"generate", "--stop-token-id", "x", "hi"},
      {"generate", "--token-ids", "1 two"},
      {"detokenize", "1 99999999999"},
      {"health", "--server", "localhost"},
      {"health", "--server", "::1:50051"},
      {"health", "--server", "127.0.0.1:0"},
      {"health", "--deadline", "5"},
      {"health", "--deadline", "-5s"},
      {"health", "--wait", "soon"},
  };
  for (const std::vector<std::string>& command_line : command_lines) {
    std::vector<std::string> argv = {BuiltProgram("pregate")};
    argv.insert(argv.end(), command_line.begin(), command_line.end());
    const ProgramResult result = RunProgram(argv);
    EXPECT_EQ(result.exit_code, 2) << result.err;
    EXPECT_EQ(result.out, "");
    EXPECT_EQ(NumLines(result.err), 1) << result.err;
    EXPECT_THAT(result.err, StartsWith("pregate: "));
    EXPECT_THAT(result.err, HasSubstr(" (see --help)\n"));
  }
}

TEST(FailureTest, HelpFitsAScreen) {
  for (const std::string command :
       {"", "generate", "chat", "tokenize", "detokenize", "models", "health", "stats", "trace"}) {
    std::vector<std::string> argv = {BuiltProgram("pregate")};
    if (!command.empty()) argv.push_back(command);
    argv.push_back("--help");
    const ProgramResult result = RunProgram(argv);
    EXPECT_EQ(result.exit_code, 0) << command;
    EXPECT_THAT(result.out, HasSubstr(absl::StrCat("Usage: pregate ", command)));
    EXPECT_LE(NumLines(result.out), 24) << command;
    for (const absl::string_view line : absl::StrSplit(result.out, '\n')) {
      EXPECT_LE(line.size(), 100) << line;
    }
  }
  const ProgramResult version = RunProgram({BuiltProgram("pregate"), "--version"});
  EXPECT_EQ(version.exit_code, 0);
  EXPECT_THAT(version.out, StartsWith("pregate "));
}

TEST(FailureTest, AnUnreadableFileIsAFailure) {
  const ProgramResult result =
      RunProgram({BuiltProgram("pregate"), "generate", "--file", "/nonexistent"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_EQ(result.err, "pregate: cannot open /nonexistent: No such file or directory\n");
}

TEST(FailureTest, ARefusedConnectionSaysWhatToDo) {
  std::string address;
  {
    const ScriptedServer gone;
    address = gone.address();
  }
  for (const std::string command : {"generate", "chat", "tokenize", "models", "health", "stats"}) {
    const ProgramResult result =
        RunProgram({BuiltProgram("pregate"), command, "--server", address}, "hi\n");
    EXPECT_EQ(result.exit_code, 1);
    EXPECT_EQ(result.out, "");
    EXPECT_EQ(result.err,
              absl::StrCat("pregate: cannot reach ",
                           address,
                           ": Connection refused (UNAVAILABLE); start pregated, name another "
                           "server with --server, or wait for it with --wait 30s\n"));
  }
}

TEST(FailureTest, ADeadlineIsNamed) {
  ScriptedServer server;
  const ProgramResult result =
      RunProgram(Pregate(server, {"generate", "hi", "--deadline", "300ms"}));
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_EQ(result.err,
            absl::StrCat("pregate: ",
                         server.address(),
                         " did not finish Generate within 300ms (DEADLINE_EXCEEDED); --deadline "
                         "allows more\n"));
}

TEST(FailureTest, TheServersDetailsAreShown) {
  google::rpc::Status details;
  details.set_code(static_cast<int>(grpc::StatusCode::INVALID_ARGUMENT));
  google::rpc::BadRequest bad_request;
  auto* const violation = bad_request.add_field_violations();
  violation->set_field("sampling.temperature");
  violation->set_description("-1 is below 0");
  details.add_details()->PackFrom(bad_request);
  google::rpc::ErrorInfo info;
  info.set_reason("INVALID_REQUEST");
  info.set_domain("pregate");
  details.add_details()->PackFrom(info);

  ScriptedServer server;
  Program program(Pregate(server, {"generate", "hi", "--temperature", "-1"}));
  GenerateCall* const call = server.AwaitGenerate();
  ASSERT_NE(call, nullptr);
  call->End(grpc::Status(grpc::StatusCode::INVALID_ARGUMENT,
                         "the request is\nnot valid",
                         details.SerializeAsString()));
  const ProgramResult result = program.Wait();
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_EQ(result.out, "");
  EXPECT_EQ(result.err,
            "pregate: the request is not valid; sampling.temperature: -1 is below 0 "
            "(INVALID_ARGUMENT, INVALID_REQUEST)\n");
}

TEST(FailureTest, TextBeforeAFailureStaysOnALineOfItsOwn) {
  ScriptedServer server;
  Program program(Pregate(server, {"generate", "hi"}));
  GenerateCall* const call = server.AwaitGenerate();
  ASSERT_NE(call, nullptr);
  call->SendText(1, "Half an");
  call->End(grpc::Status(grpc::StatusCode::INTERNAL, "a fault"));
  const ProgramResult result = program.Wait();
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_EQ(result.out, "Half an\n");
  EXPECT_EQ(result.err, "pregate: a fault (INTERNAL)\n");
}

TEST(FailureTest, TextThatIsNotUtf8IsLeftToTheServerWithoutNoise) {
  google::protobuf::SetLogHandler(nullptr);  // of the server's side, which is in this process
  ScriptedServer server;
  const ProgramResult result = RunProgram(Pregate(server, {"tokenize"}), "\xff\xfe");
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_EQ(NumLines(result.err), 1) << result.err;
}

}  // namespace
}  // namespace pregate
