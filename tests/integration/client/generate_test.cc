#include <csignal>
#include <string>
#include <vector>

#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "nlohmann/json.hpp"
#include "tests/integration/client/client_test.h"
#include "tests/support/temp_folder.h"

namespace pregate {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

TEST(GenerateTest, TextAppearsAsItArrives) {
  ScriptedServer server;
  Program program(Pregate(server, {"generate", "Once upon"}));
  GenerateCall* const call = server.AwaitGenerate();
  ASSERT_NE(call, nullptr);
  EXPECT_EQ(call->request().prompt(), "Once upon");
  EXPECT_FALSE(call->has_deadline());

  call->SendText(1, " a");
  EXPECT_EQ(program.WaitForOut(" a"), " a");
  call->SendText(2, " ti");
  EXPECT_EQ(program.WaitForOut("ti"), " a ti");
  call->SendText(3, "me");
  call->Send(FinishedAtLength());
  call->Send(SummaryOf(2, 3));
  call->End();

  const ProgramResult result = program.Wait();
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.out, " a time\n");
  EXPECT_THAT(result.err, HasSubstr("prompt 2 tokens, answer 3 tokens, "));
  EXPECT_THAT(result.err, HasSubstr(" tokens/s, stopped at the token limit\nfirst token "));
  EXPECT_THAT(result.err, HasSubstr("prefill 250.0 ms"));
}

struct Prompt {
  std::vector<std::string> arguments;
  std::string input;
  std::string expected;
};

TEST(GenerateTest, ThePromptComesFromAnArgumentAFileOrAPipe) {
  const TempFolder folder;
  const std::string file = folder.Write("prompt", "from\na file\n\n");
  const std::vector<Prompt> prompts = {
      {{"an argument\n"}, "unread", "an argument\n"},
      {{""}, "unread", ""},
      {{"--file", file}, "unread", "from\na file\n"},
      {{}, "a pipe\n", "a pipe"},
      {{"-"}, "a \xc3\xa9 pipe", "a \xc3\xa9 pipe"},
      {{}, "", ""},
      {{"--", "--not-a-flag"}, "", "--not-a-flag"},
  };
  ScriptedServer server;
  for (const Prompt& prompt : prompts) {
    SCOPED_TRACE(prompt.expected);
    std::vector<std::string> arguments = {"generate"};
    arguments.insert(arguments.end(), prompt.arguments.begin(), prompt.arguments.end());
    Program program(Pregate(server, arguments));
    program.Write(prompt.input);
    program.CloseInput();
    GenerateCall* const call = server.AwaitGenerate();
    ASSERT_NE(call, nullptr);
    EXPECT_EQ(call->request().input_case(), v1::GenerateRequest::kPrompt);
    EXPECT_EQ(call->request().prompt(), prompt.expected);
    AnswerWith(*call, "yes");
    EXPECT_EQ(program.Wait().out, "yes\n");
  }
}

TEST(GenerateTest, FlagsFillTheRequestAndOthersStayUnset) {
  ScriptedServer server;
  Program program(Pregate(server,
                          {"generate",
                           "--token-ids",
                           "1 2,3",
                           "--max-tokens",
                           "5",
                           "--top_k",
                           "40",
                           "--top-p=0.5",
                           "--temperature",
                           "-1",
                           "--seed",
                           "18446744073709551615",
                           "--stop",
                           "{}",
                           "--stop",
                           "[a,b]",
                           "--stop-token-id",
                           "8",
                           "--stop-token-id=9",
                           "--ignore-eos",
                           "--logprobs",
                           "0",
                           "--model",
                           "m",
                           "--request-id",
                           "r1",
                           "--deadline",
                           "1h"}));
  GenerateCall* const call = server.AwaitGenerate();
  ASSERT_NE(call, nullptr);
  const v1::GenerateRequest& request = call->request();
  EXPECT_THAT(request.token_ids().ids(), ElementsAre(1, 2, 3));
  EXPECT_EQ(request.stopping().max_tokens(), 5);
  EXPECT_EQ(request.sampling().top_k(), 40);
  EXPECT_EQ(request.sampling().top_p(), 0.5F);
  EXPECT_EQ(request.sampling().temperature(), -1);
  EXPECT_EQ(request.sampling().seed(), 18446744073709551615U);
  EXPECT_THAT(request.stopping().stop(), ElementsAre("{}", "[a,b]"));
  EXPECT_THAT(request.stopping().stop_token_ids(), ElementsAre(8, 9));
  EXPECT_TRUE(request.stopping().ignore_eos());
  EXPECT_TRUE(request.sampling().has_logprobs());
  EXPECT_EQ(request.model(), "m");
  EXPECT_EQ(request.request_id(), "r1");
  EXPECT_TRUE(call->has_deadline());
  AnswerWith(*call, "");
  EXPECT_EQ(program.Wait().exit_code, 0);

  Program plain(Pregate(server, {"generate", "hi"}));
  GenerateCall* const bare = server.AwaitGenerate();
  ASSERT_NE(bare, nullptr);
  EXPECT_EQ(bare->request().sampling().ByteSizeLong(), 0);
  EXPECT_EQ(bare->request().stopping().ByteSizeLong(), 0);
  AnswerWith(*bare, "");
  EXPECT_EQ(plain.Wait().exit_code, 0);
}

TEST(GenerateTest, JsonIsOneObjectALineForEachEvent) {
  ScriptedServer server;
  Program program(Pregate(server, {"--json", "generate", "hi"}));
  GenerateCall* const call = server.AwaitGenerate();
  ASSERT_NE(call, nullptr);
  AnswerWith(*call, "a\n\"b\"");
  const ProgramResult result = program.Wait();
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.err, "");

  const std::vector<std::string> lines = absl::StrSplit(result.out, '\n', absl::SkipEmpty());
  ASSERT_THAT(lines, SizeIs(3));
  const auto delta = nlohmann::json::parse(lines[0])["delta"];
  EXPECT_EQ(delta["text"], "a\n\"b\"");
  EXPECT_EQ(delta["token_ids"], nlohmann::json({7}));
  EXPECT_EQ(delta["index"], 0);
  EXPECT_EQ(nlohmann::json::parse(lines[1])["finished"]["reason"], "FINISH_REASON_LENGTH");
  const auto summary = nlohmann::json::parse(lines[2])["summary"];
  EXPECT_EQ(summary["usage"]["prompt_tokens"], 3);
  EXPECT_EQ(summary["timings"]["prefill_seconds"], 0.25);
}

TEST(GenerateTest, LogprobsFollowTheText) {
  ScriptedServer server;
  Program program(Pregate(server, {"generate", "--logprobs", "1", "hi"}));
  GenerateCall* const call = server.AwaitGenerate();
  ASSERT_NE(call, nullptr);
  v1::GenerateResponse event;
  event.mutable_delta()->add_token_ids(42);
  event.mutable_delta()->set_text("yes");
  v1::TokenLogprob* const logprob = event.mutable_delta()->add_logprobs();
  logprob->set_token_id(42);
  logprob->set_logprob(-0.5);
  call->Send(event);
  call->End();
  const ProgramResult result = program.Wait();
  EXPECT_EQ(result.out, "yes\n");
  EXPECT_THAT(result.err, HasSubstr("token 42: logprob -0.5000\n"));
}

TEST(GenerateTest, CtrlCCancelsOnTheServer) {
  ScriptedServer server;
  Program program(Pregate(server, {"generate", "hi"}));
  GenerateCall* const call = server.AwaitGenerate();
  ASSERT_NE(call, nullptr);
  call->SendText(1, "So far");
  program.WaitForOut("So far");
  program.Signal(SIGINT);
  EXPECT_TRUE(call->AwaitCancelled());
  const ProgramResult result = program.Wait();
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_EQ(result.out, "So far\n");
  EXPECT_EQ(result.err, "pregate: interrupted\n");
}

TEST(GenerateTest, AReaderThatLeavesEndsItQuietly) {
  ScriptedServer server;
  const std::string pregate = BuiltProgram("pregate");
  Program program(
      {"sh", "-c", pregate + " --server " + server.address() + " generate hi | head -c 1"});
  GenerateCall* const call = server.AwaitGenerate();
  ASSERT_NE(call, nullptr);
  call->SendText(1, "x");
  EXPECT_EQ(program.WaitForOut("x"), "x");
  // head leaves a moment after it has printed; the first write that follows finds nobody.
  v1::GenerateResponse event;
  event.mutable_delta()->set_text("more");
  while (call->Send(event)) {
  }
  EXPECT_TRUE(call->AwaitCancelled());
  const ProgramResult result = program.Wait();
  EXPECT_EQ(result.out, "x");
  EXPECT_EQ(result.err, "");
}

TEST(GenerateTest, AFullDiskIsToldAndCancels) {
  ScriptedServer server;
  Program program(
      {"sh",
       "-c",
       BuiltProgram("pregate") + " --server " + server.address() + " generate hi >/dev/full"});
  GenerateCall* const call = server.AwaitGenerate();
  ASSERT_NE(call, nullptr);
  call->SendText(1, "x");
  EXPECT_TRUE(call->AwaitCancelled());
  const ProgramResult result = program.Wait();
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_EQ(result.err, "pregate: cannot write the result: No space left on device\n");
}

}  // namespace
}  // namespace pregate
