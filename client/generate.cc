#include <cstdio>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "client/answer_printer.h"
#include "client/command.h"
#include "client/input.h"
#include "client/interrupts.h"
#include "client/request_flags.h"
#include "core/base/clock.h"
#include "core/base/status_macros.h"
#include "tools/cli.h"

namespace pregate {
namespace {

struct Generate {
  TextInput input;
  bool token_ids = false;
  v1::GenerateRequest request;
};

absl::Status FillInput(Generate& generate) {
  PREGATE_ASSIGN_OR_RETURN(std::string text, generate.input.Read());
  if (!generate.token_ids) {
    generate.request.set_prompt(std::move(text));
    return absl::OkStatus();
  }
  PREGATE_ASSIGN_OR_RETURN(const std::vector<uint32_t> ids, ParseTokenIds(text));
  generate.request.mutable_token_ids()->mutable_ids()->Add(ids.begin(), ids.end());
  return absl::OkStatus();
}

void PrintReport(const AnswerPrinter& answer) {
  for (const v1::TokenLogprob& logprob : answer.logprobs()) {
    std::fputs(absl::StrCat(FormatLogprob(logprob), "\n").c_str(), stderr);
  }
  std::fputs(FormatReport(answer.report()).c_str(), stderr);
}

int Run(const CommonOptions& options, Generate& generate) {
  // Until the input is read Ctrl-C simply ends the program.
  const absl::Status filled = FillInput(generate);
  if (absl::IsInvalidArgument(filled)) return FailUsage(filled);
  if (!filled.ok()) return Fail(filled);

  Cancellation cancellation;
  const Interrupts interrupts([&cancellation] { cancellation.Cancel(); });
  Client client(options.client);
  const absl::Status ready = WaitIfAsked(client, options, cancellation);
  if (!ready.ok()) return Fail(ready);

  const RealClock clock;
  Output out(stdout);
  AnswerPrinter answer(
      options.json ? AnswerPrinter::Format::kJson : AnswerPrinter::Format::kText, out, clock);
  const absl::Status generated =
      client.Generate(generate.request, cancellation, [&answer](const v1::GenerateResponse& event) {
        return answer.Show(event);
      });
  const absl::Status ended = answer.EndLine();
  if (!generated.ok()) return Fail(generated);
  if (!ended.ok()) return Fail(ended);
  if (!options.json) PrintReport(answer);
  return kExitOk;
}

}  // namespace

Command AddGenerate(CLI::App& program, const CommonOptions& options) {
  const auto generate = std::make_shared<Generate>();
  CLI::App* const app = program.add_subcommand("generate", "continue a prompt");
  generate->input.AddTo(*app, "PROMPT", "the text to continue; - or nothing: from stdin");
  app->add_flag(
      "--token-ids", generate->token_ids, "the prompt is token ids, as tokenize prints them");
  AddRequestFlags(*app, generate->request);
  return {.app = app, .run = [&options, generate] { return Run(options, *generate); }};
}

}  // namespace pregate
