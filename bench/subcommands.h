// The subcommands of pregate-bench that stand in files of their own.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "bench/spread.h"
#include "core/base/log.h"
#include "core/base/options.h"
#include "nlohmann/json.hpp"

namespace pregate {

// A subcommand and what runs it once the command line is parsed.
struct Subcommand {
  CLI::App* app = nullptr;
  std::function<absl::Status(const Logger& logger)> run;
};

// The engine's flags of these names, in this order, --model among them and required.
void AddEngineFlags(CLI::App& app, EngineOptions& options, const std::vector<std::string>& names);

// A list of numbers: `target` keeps its value when the flag is not given.
Flag CountsFlag(std::string name,
                std::string help,
                uint32_t minimum,
                uint32_t maximum,
                std::vector<uint32_t>& target);

// Of the sources that this was built from; "" when they were no repository.
std::string BuildCommit();

nlohmann::ordered_json ToJson(const Spread& spread);
// "median (min..max)".
std::string RangeText(const Spread& spread, int decimals);
Spread Scaled(const Spread& spread, double factor);

// One configuration in depth.
Subcommand AddBenchmark(CLI::App& program);

// Speculation modes side by side, with their controls.
Subcommand AddCompare(CLI::App& program);

// How speed changes with residency, codec and batch size.
Subcommand AddSweep(CLI::App& program);

// A routing trace through eviction policies and predictors.
Subcommand AddReplay(CLI::App& program);

// What finding experts costs when all are resident.
Subcommand AddLookup(CLI::App& program);

// How fast experts come to the device.
Subcommand AddLink(CLI::App& program);

}  // namespace pregate
