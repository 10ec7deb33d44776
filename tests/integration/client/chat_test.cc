#include <csignal>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gmock/gmock.h"
#include "tests/integration/client/client_test.h"

namespace pregate {
namespace {

using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;

// "role: content" of each message.
std::vector<std::string> History(const GenerateCall& call) {
  std::vector<std::string> history;
  for (const v1::Message& message : call.request().messages().messages()) {
    history.push_back(absl::StrCat(message.role(), ": ", message.content()));
  }
  return history;
}

// The program on a terminal of its own; what is written is typed.
std::vector<std::string> OnATerminal(const std::vector<std::string>& argv) {
  // `exec`, for Ctrl-C would also end a shell that waits beside the program.
  return {"script",
          "--quiet",
          "--return",
          "--command",
          absl::StrCat("exec ", absl::StrJoin(argv, " ")),
          "/dev/null"};
}

TEST(ChatTest, EveryQuestionIsSentWithTheWholeHistory) {
  ScriptedServer server;
  Program program(Pregate(server, {"chat", "--system", "Be brief.", "--max-tokens", "9"}));
  program.Write("Hello\n");
  GenerateCall* call = server.AwaitGenerate();
  ASSERT_NE(call, nullptr);
  EXPECT_THAT(History(*call), ElementsAre("system: Be brief.", "user: Hello"));
  EXPECT_EQ(call->request().stopping().max_tokens(), 9);
  AnswerWith(*call, "Hi.");

  program.Write("\n  Why?  \n");
  call = server.AwaitGenerate();
  ASSERT_NE(call, nullptr);
  EXPECT_THAT(History(*call),
              ElementsAre("system: Be brief.", "user: Hello", "assistant: Hi.", "user: Why?"));
  AnswerWith(*call, "Because.");

  program.Write("/reset\nAgain\n");
  call = server.AwaitGenerate();
  ASSERT_NE(call, nullptr);
  EXPECT_THAT(History(*call), ElementsAre("system: Be brief.", "user: Again"));
  AnswerWith(*call, "Hi.");

  program.Write("/exit\nunread\n");
  const ProgramResult result = program.Wait();
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.out, "Hi.\nBecause.\nHi.\n");
  EXPECT_EQ(result.err, "");
}

TEST(ChatTest, EndsWithItsInput) {
  ScriptedServer server;
  const ProgramResult result = RunProgram(Pregate(server, {"chat"}));
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.out, "");
  EXPECT_EQ(result.err, "");
}

TEST(ChatTest, CtrlCStopsTheAnswerAndKeepsWhatCame) {
  ScriptedServer server;
  Program program(Pregate(server, {"chat"}));
  program.Write("Count\n");
  GenerateCall* call = server.AwaitGenerate();
  ASSERT_NE(call, nullptr);
  call->SendText(1, "one two");
  program.WaitForOut("two");
  program.Signal(SIGINT);
  EXPECT_TRUE(call->AwaitCancelled());

  program.Write("Go on\n");
  call = server.AwaitGenerate();
  ASSERT_NE(call, nullptr);
  EXPECT_THAT(History(*call), ElementsAre("user: Count", "assistant: one two", "user: Go on"));
  AnswerWith(*call, "three");
  const ProgramResult result = program.Wait();
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.out, "one two\nthree\n");
  EXPECT_EQ(result.err, "pregate: interrupted\n");
}

TEST(ChatTest, OnATerminalItPromptsAndCtrlCAtThePromptIsHarmless) {
  if (RunProgram(OnATerminal({"true"})).exit_code != 0) {
    GTEST_SKIP() << "no terminal can be made here: is /dev/pts mounted?";
  }
  ScriptedServer server;
  Program program(OnATerminal(Pregate(server, {"chat"})));
  program.WaitForOut("> ");
  program.Write("\x03");
  program.WaitForOut("^C\r\n> ");
  program.Write("Hello\n");
  GenerateCall* call = server.AwaitGenerate();
  ASSERT_NE(call, nullptr);
  EXPECT_THAT(History(*call), ElementsAre("user: Hello"));
  call->SendText(1, "Hi");
  program.WaitForOut("Hi");
  program.Write("\x03");
  EXPECT_TRUE(call->AwaitCancelled());
  EXPECT_THAT(program.WaitForOut("interrupted\r\n> "), HasSubstr("pregate: interrupted\r\n> "));

  program.Write("Bad\n");
  call = server.AwaitGenerate();
  ASSERT_NE(call, nullptr);
  call->End(grpc::Status(grpc::StatusCode::INTERNAL, "a fault"));
  program.WaitForOut("a fault (INTERNAL)\r\n> ");
  program.Write("\x04");
  const ProgramResult result = program.Wait();
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(result.out, EndsWith("> \r\n"));
}

TEST(ChatTest, WithoutATerminalAFailureIsTheEnd) {
  ScriptedServer server;
  Program program(Pregate(server, {"chat"}));
  program.Write("One\nTwo\n");
  GenerateCall* const call = server.AwaitGenerate();
  ASSERT_NE(call, nullptr);
  call->End(grpc::Status(grpc::StatusCode::INTERNAL, "a fault"));
  const ProgramResult result = program.Wait();
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_EQ(result.err, "pregate: a fault (INTERNAL)\n");
}

TEST(ChatTest, AModelWithoutAChatTemplateIsToldBeforeTheFirstQuestion) {
  ScriptedServer server;
  server.model().set_has_chat_template(false);
  const ProgramResult result = RunProgram(Pregate(server, {"chat"}), "Hello\n");
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_EQ(result.out, "");
  EXPECT_EQ(
      result.err,
      "pregate: model scripted has no chat template (FAILED_PRECONDITION); `pregate generate` "
      "continues plain text\n");
}

}  // namespace
}  // namespace pregate
