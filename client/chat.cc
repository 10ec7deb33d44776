#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <iostream>
#include <memory>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "client/answer_printer.h"
#include "client/command.h"
#include "client/interrupts.h"
#include "client/request_flags.h"
#include "core/base/clock.h"
#include "core/base/status_macros.h"
#include "tools/cli.h"

namespace pregate {
namespace {

// A conversation: its request holds the history.
class Conversation {
 public:
  // The references must outlive this. `request` holds what every question is sent with.
  Conversation(Client& client,
               Cancellation& cancellation,
               Output& out,
               AnswerPrinter::Format format,
               v1::GenerateRequest request)
      : client_(client),
        cancellation_(cancellation),
        out_(out),
        format_(format),
        request_(std::move(request)),
        num_opening_messages_(request_.messages().messages_size()) {}

  // Sends the history and `text` and shows the answer. The history grows by both, also by what came
  // of an answer that was interrupted; after any other failure it is as before.
  absl::Status Ask(absl::string_view text) {
    AddMessage("user", text);
    AnswerPrinter answer(format_, out_, clock_);
    absl::Status status =
        client_.Generate(request_, cancellation_, [&answer](const v1::GenerateResponse& event) {
          return answer.Show(event);
        });
    const absl::Status ended = answer.EndLine();
    if (status.ok()) status = ended;
    if (status.ok() || (absl::IsCancelled(status) && !answer.text().empty())) {
      AddMessage("assistant", answer.text());
    } else {
      messages().RemoveLast();
    }
    return status;
  }

  // Forgets all but the opening messages.
  void Reset() {
    messages().DeleteSubrange(num_opening_messages_, messages().size() - num_opening_messages_);
  }

 private:
  google::protobuf::RepeatedPtrField<v1::Message>& messages() {
    return *request_.mutable_messages()->mutable_messages();
  }
  void AddMessage(absl::string_view role, absl::string_view content) {
    v1::Message* const message = messages().Add();
    message->set_role(std::string(role));
    message->set_content(std::string(content));
  }

  Client& client_;
  Cancellation& cancellation_;
  Output& out_;
  const AnswerPrinter::Format format_;
  const RealClock clock_;
  v1::GenerateRequest request_;
  const int num_opening_messages_;
};

// Says before the first question what the server would say after it.
absl::Status CheckChatTemplate(Client& client, const std::string& name) {
  PREGATE_ASSIGN_OR_RETURN(const v1::Model model, client.GetModel(name));
  if (model.has_chat_template()) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      "model ",
      model.name(),
      " has no chat template (FAILED_PRECONDITION); `pregate generate` continues plain "
      "text"));
}

// Reads questions, one a line, until the input ends. Without a terminal a failure is the end.
int Converse(Conversation& conversation, Cancellation& cancellation, bool is_terminal) {
  const auto prompt = [is_terminal](const char* text) {
    if (is_terminal) std::fputs(text, stdout);
    std::fflush(stdout);
  };
  prompt("> ");
  for (std::string line; std::getline(std::cin, line); prompt("> ")) {
    const absl::string_view text = absl::StripAsciiWhitespace(line);
    if (text == "/exit") return kExitOk;
    if (text == "/reset") {
      conversation.Reset();
    } else if (!text.empty()) {
      cancellation.Reset();
      const absl::Status status = conversation.Ask(text);
      if (status.ok()) continue;
      Fail(status);
      if (!is_terminal && !absl::IsCancelled(status)) return kExitFailure;
    }
  }
  prompt("\n");
  return kExitOk;
}

struct Chat {
  std::string system;
  v1::GenerateRequest request;
};

int Run(const CommonOptions& options, const Chat& chat) {
  const bool is_terminal = isatty(STDIN_FILENO) == 1 && isatty(STDOUT_FILENO) == 1;
  std::atomic<bool> is_conversing = false;
  Cancellation cancellation;
  Output out(stdout);
  const Interrupts interrupts([&] {
    if (cancellation.Cancel()) return;
    if (!is_conversing) std::_Exit(Fail(absl::CancelledError("interrupted")));
    if (is_terminal) out.Write("\n> ").IgnoreError();
  });
  Client client(options.client);
  absl::Status ready = WaitIfAsked(client, options, cancellation);
  if (ready.ok()) ready = CheckChatTemplate(client, chat.request.model());
  if (!ready.ok()) return Fail(ready);

  v1::GenerateRequest request = chat.request;
  request.mutable_messages();
  if (!chat.system.empty()) {
    v1::Message* const message = request.mutable_messages()->add_messages();
    message->set_role("system");
    message->set_content(chat.system);
  }
  Conversation conversation(
      client,
      cancellation,
      out,
      options.json ? AnswerPrinter::Format::kJson : AnswerPrinter::Format::kText,
      std::move(request));
  is_conversing = true;
  if (is_terminal) {
    std::fputs("Ctrl-C stops an answer, /reset forgets the conversation, /exit ends.\n", stderr);
  }
  return Converse(conversation, cancellation, is_terminal);
}

}  // namespace

Command AddChat(CLI::App& program, const CommonOptions& options) {
  const auto chat = std::make_shared<Chat>();
  CLI::App* const app = program.add_subcommand(
      "chat", "converse: one question a line; /reset forgets, /exit or Ctrl-D ends");
  app->add_option("--system", chat->system, "the message that opens the conversation")
      ->type_name("TEXT");
  AddRequestFlags(*app, chat->request);
  return {.app = app, .run = [&options, chat] { return Run(options, *chat); }};
}

}  // namespace pregate
