// What all our programs' command lines have in common: kebab-case flags that may be spelled with
// underscores, --help, --version, exit codes, one line for an error, and a progress bar.
#pragma once

#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "core/base/clock.h"
#include "core/base/options.h"

namespace pregate {

inline constexpr int kExitOk = 0;
inline constexpr int kExitFailure = 1;
inline constexpr int kExitUsage = 2;

// "0.1.0".
absl::string_view Version();

// Adds the flags of a table to `app` (a program or one of its subcommands). Each is stored when it
// is parsed; of a flag given twice the last counts. Parsing the same command line again stores them
// again, which is how flags override a configuration file read in between. With rare ones among
// them comes --help-all.
void AddFlags(CLI::App& app, const std::vector<Flag>& flags);

// Adds --version to `app`, the program itself, and parses. Returns the code to exit with when there
// is nothing left to do: after --help or --version, or after a usage error, which has been printed.
std::optional<int> ParseCommandLine(CLI::App& app, int argc, const char* const* argv);

// Prints `program: message` on stderr, on one line, and returns kExitFailure.
int ReportFailure(absl::string_view program, const absl::Status& status);

// The same for a command line that is wrong in a way that only shows after it was parsed; returns
// kExitUsage.
int ReportUsageError(absl::string_view program, const absl::Status& status);

// Shows how far long work has come, on stderr: on a terminal one line that is drawn again and again
// and erased at the end, else a plain line for each tenth. Nothing is shown for work that is done
// within two seconds. Used by one thread.
class Progress {
 public:
  // `total`: what Advance sums up to; at least one.
  Progress(std::string label, uint64_t total);

  // For tests.
  Progress(std::string label, uint64_t total, std::FILE* out, bool is_terminal, const Clock& clock);

  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void Advance(uint64_t amount);

 private:
  void DrawBar(uint64_t percent);

  const std::string label_;
  const uint64_t total_;
  std::FILE* const out_;
  const bool is_terminal_;
  const Clock& clock_;
  const TimePoint start_;
  uint64_t done_ = 0;
  uint64_t shown_percent_ = 0;
  bool is_drawn_ = false;  // a bar stands on the terminal's line
};

}  // namespace pregate
