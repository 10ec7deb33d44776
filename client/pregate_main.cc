// pregate, the command-line client: reads the command line and runs a subcommand.
#include <csignal>
#include <cstdlib>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/command.h"
#include "client/credentials.h"
#include "google/protobuf/stubs/logging.h"
#include "tools/cli.h"

namespace pregate {
namespace {

absl::Status ParseDuration(absl::string_view text, std::optional<absl::Duration>& duration) {
  absl::Duration parsed;
  if (!absl::ParseDuration(text, &parsed) || parsed <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", text, "\" is not a time such as 500ms, 30s or 1m30s"));
  }
  duration = parsed;
  return absl::OkStatus();
}

std::vector<Flag> CommonFlags(CommonOptions& options) {
  return {
      {.name = "server",
       .value_name = "HOST:PORT",
       .help = absl::StrCat("where pregated listens (default ", options.client.server, ")"),
       .set =
           [&options](absl::string_view text) {
             options.client.server = std::string(text);
             return CheckServerAddress(text);
           }},
      {.name = "deadline",
       .value_name = "TIME",
       .help = "end of each call, e.g. 500ms (default 30s; of streams: none)",
       .set = [&options](
                  absl::string_view text) { return ParseDuration(text, options.client.deadline); }},
      {.name = "wait",
       .value_name = "TIME",
       .help = "wait up to this long until the server is ready",
       .set = [&options](absl::string_view text) { return ParseDuration(text, options.wait); },
       .is_rare = true},
      SwitchFlag("json", "print JSON, one object a line", options.json)};
}

int Main(int argc, const char* const* argv) {
  CLI::App program("Talks to a pregated.", "pregate");
  CommonOptions options;
  CredentialOptions credentials;
  AddFlags(program, CommonFlags(options));
  AddFlags(program, CredentialFlags(credentials));
  program.require_subcommand(1);
  std::vector<Command> commands = {AddGenerate(program, options),
                                   AddChat(program, options),
                                   AddTokenize(program, options),
                                   AddDetokenize(program, options),
                                   AddModels(program, options),
                                   AddHealth(program, options),
                                   AddStats(program, options),
                                   AddTrace(program, options)};
  for (const Command& command : commands) {
    command.app->fallthrough();
    command.app->footer(
        "Also --server, --deadline, --wait, --json, TLS and tokens: see pregate --help.");
  }
  if (const std::optional<int> code = ParseCommandLine(program, argc, argv)) return *code;
  if (const absl::Status status =
          ReadCredentials(credentials, std::getenv("PREGATE_TOKEN"), options.client);
      !status.ok()) {
    return absl::IsInvalidArgument(status) ? FailUsage(status) : Fail(status);
  }
  for (const Command& command : commands) {
    if (command.app->parsed()) return command.run();
  }
  return kExitUsage;
}

}  // namespace
}  // namespace pregate

int main(int argc, char** argv) {
  // Failures are told by us, once. GRPC_VERBOSITY=debug still shows what the library thinks.
  setenv("GRPC_VERBOSITY", "NONE", /*replace=*/0);
  google::protobuf::SetLogHandler(nullptr);
  // A reader that has gone ends us without a word, whatever our parent thought of SIGPIPE.
  std::signal(SIGPIPE, SIG_DFL);
  return pregate::Main(argc, argv);
}
