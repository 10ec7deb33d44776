// The subcommands of pregate.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "client/client.h"

namespace pregate {

// What every subcommand takes.
struct CommonOptions {
  ClientOptions client;
  std::optional<absl::Duration> wait;  // for the server to be ready
  bool json = false;
};

// A subcommand of a program, chosen when `app->parsed()`.
struct Command {
  CLI::App* app = nullptr;
  std::function<int()> run;  // returns the exit code, having printed why when it is not 0
};

// Each adds a subcommand to `program`, to be run after `options` were parsed. Both must outlive it.
Command AddGenerate(CLI::App& program, const CommonOptions& options);
Command AddChat(CLI::App& program, const CommonOptions& options);
Command AddTokenize(CLI::App& program, const CommonOptions& options);
Command AddDetokenize(CLI::App& program, const CommonOptions& options);
Command AddModels(CLI::App& program, const CommonOptions& options);
Command AddHealth(CLI::App& program, const CommonOptions& options);
Command AddStats(CLI::App& program, const CommonOptions& options);
Command AddTrace(CLI::App& program, const CommonOptions& options);

// Does what --wait asks for, for `service` ("" = the whole server).
absl::Status WaitIfAsked(Client& client,
                         const CommonOptions& options,
                         Cancellation& cancellation,
                         const std::string& service = "");

// Prints `pregate: message` on stderr; 1.
int Fail(const absl::Status& status);
// The same for a command line that is wrong; 2.
int FailUsage(const absl::Status& status);

}  // namespace pregate
