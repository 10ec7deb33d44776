// pregate tokenize and detokenize.
#include <cstdio>
#include <memory>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/command.h"
#include "client/input.h"
#include "client/output.h"
#include "core/base/status_macros.h"
#include "tools/cli.h"

namespace pregate {
namespace {

struct Tokenize {
  TextInput input;
  v1::TokenizeRequest request;
  bool no_special_tokens = false;
};

struct Detokenize {
  TextInput input;
  v1::DetokenizeRequest request;
};

absl::Status FillInput(Tokenize& tokenize) {
  PREGATE_ASSIGN_OR_RETURN(*tokenize.request.mutable_text(), tokenize.input.Read());
  if (tokenize.no_special_tokens) tokenize.request.set_add_special_tokens(false);
  return absl::OkStatus();
}

absl::Status FillInput(Detokenize& detokenize) {
  PREGATE_ASSIGN_OR_RETURN(const std::string text, detokenize.input.Read());
  PREGATE_ASSIGN_OR_RETURN(const std::vector<uint32_t> ids, ParseTokenIds(text));
  detokenize.request.mutable_token_ids()->Add(ids.begin(), ids.end());
  return absl::OkStatus();
}

absl::Status Answer(const CommonOptions& options, const Tokenize& tokenize) {
  Client client(options.client);
  Cancellation cancellation;
  PREGATE_RETURN_IF_ERROR(WaitIfAsked(client, options, cancellation));
  PREGATE_ASSIGN_OR_RETURN(const v1::TokenizeResponse response, client.Tokenize(tokenize.request));
  return Output(stdout).Write(absl::StrCat(
      options.json ? ToJson(response) : absl::StrJoin(response.token_ids(), " "), "\n"));
}

absl::Status Answer(const CommonOptions& options, const Detokenize& detokenize) {
  Client client(options.client);
  Cancellation cancellation;
  PREGATE_RETURN_IF_ERROR(WaitIfAsked(client, options, cancellation));
  PREGATE_ASSIGN_OR_RETURN(const v1::DetokenizeResponse response,
                           client.Detokenize(detokenize.request));
  std::string text = options.json ? ToJson(response) : response.text();
  if (!absl::EndsWith(text, "\n")) text += "\n";
  return Output(stdout).Write(text);
}

template <typename Call>
int Run(const CommonOptions& options, Call& call) {
  const absl::Status filled = FillInput(call);
  if (absl::IsInvalidArgument(filled)) return FailUsage(filled);
  if (!filled.ok()) return Fail(filled);
  const absl::Status answered = Answer(options, call);
  return answered.ok() ? kExitOk : Fail(answered);
}

}  // namespace

Command AddTokenize(CLI::App& program, const CommonOptions& options) {
  const auto tokenize = std::make_shared<Tokenize>();
  CLI::App* const app = program.add_subcommand("tokenize", "turn text into token ids");
  tokenize->input.AddTo(*app, "TEXT", "the text; - or nothing: from stdin");
  AddFlags(
      *app,
      {TextFlag("model", "NAME", "one of the served models", *tokenize->request.mutable_model()),
       SwitchFlag("no-special-tokens",
                  "without those that the tokenizer adds, such as a beginning of text",
                  tokenize->no_special_tokens)});
  return {.app = app, .run = [&options, tokenize] { return Run(options, *tokenize); }};
}

Command AddDetokenize(CLI::App& program, const CommonOptions& options) {
  const auto detokenize = std::make_shared<Detokenize>();
  CLI::App* const app = program.add_subcommand("detokenize", "turn token ids into text");
  detokenize->input.AddTo(*app, "IDS", "as tokenize prints them; - or nothing: from stdin");
  AddFlags(
      *app,
      {TextFlag("model", "NAME", "one of the served models", *detokenize->request.mutable_model()),
       {.name = "skip-special-tokens",
        .value_name = "",
        .help = "leave special tokens out",
        .set = [request = &detokenize->request](absl::string_view) {
          request->set_skip_special_tokens(true);
          return absl::OkStatus();
        }}});
  return {.app = app, .run = [&options, detokenize] { return Run(options, *detokenize); }};
}

}  // namespace pregate
