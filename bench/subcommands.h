// The subcommands of pregate-bench that stand in files of their own.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "core/base/log.h"
#include "core/base/options.h"

namespace pregate {

// A subcommand and what runs it once the command line is parsed.
struct Subcommand {
  CLI::App* app = nullptr;
  std::function<absl::Status(const Logger& logger)> run;
};

// The engine's flags of these names, in this order, --model among them and required.
void AddEngineFlags(CLI::App& app, EngineOptions& options, const std::vector<std::string>& names);

// Speculation modes side by side, with their controls.
Subcommand AddCompare(CLI::App& program);

// A routing trace through eviction policies.
Subcommand AddReplay(CLI::App& program);

}  // namespace pregate
