#include "tools/cli.h"

#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "core/base/check.h"

namespace pregate {
namespace {

constexpr double kQuietSeconds = 2;  // before the first sign of progress
constexpr int kBarWidth = 30;
constexpr char kHidden[] = "";  // the group that CLI11 shows no help of

const Clock& WallClock() {
  static const RealClock clock;
  return clock;
}

void Set(const Flag& flag, absl::string_view value) {
  const absl::Status status = flag.set(value);
  if (status.ok()) return;
  throw CLI::ValidationError(absl::StrCat("--", flag.name), std::string(status.message()));
}

// --max_running=5 as --max-running=5. Values and what follows a bare -- stay as they are.
std::vector<std::string> WithDashes(int argc, const char* const* argv) {
  std::vector<std::string> arguments;
  bool flags_over = false;
  for (int i = 1; i < argc; ++i) {
    std::string argument = argv[i];
    if (argument == "--") flags_over = true;
    if (!flags_over && argument.rfind("--", 0) == 0) {
      const auto name_end = std::min(argument.find('='), argument.size());
      std::replace(argument.begin(), argument.begin() + static_cast<ptrdiff_t>(name_end), '_', '-');
    }
    arguments.push_back(std::move(argument));
  }
  return arguments;
}

void PrintError(absl::string_view program, absl::string_view message) {
  std::cerr << absl::StrCat(program, ": ", absl::StrReplaceAll(message, {{"\n", " "}}), "\n");
}

}  // namespace

absl::string_view Version() { return PREGATE_VERSION; }

void AddFlags(CLI::App& app, const std::vector<Flag>& flags) {
  for (const Flag& flag : flags) {
    const std::string name = absl::StrCat("--", flag.name);
    CLI::Option* option = nullptr;
    if (flag.value_name.empty()) {
      option = app.add_flag_function(
          name, [flag](int64_t count) { Set(flag, count > 0 ? "true" : "false"); }, flag.help);
    } else {
      option = app.add_option_function<std::string>(
                      name, [flag](const std::string& value) { Set(flag, value); }, flag.help)
                   ->type_name(flag.value_name)
                   ->take_last();
    }
    if (!flag.is_rare) continue;
    option->group(kHidden);
    if (app.get_help_all_ptr() == nullptr)
      app.set_help_all_flag("--help-all", "show the flags that few need, too");
  }
}

std::optional<int> ParseCommandLine(CLI::App& app, int argc, const char* const* argv) {
  if (app.get_version_ptr() == nullptr) {
    app.set_version_flag("--version", absl::StrCat(app.get_name(), " ", Version()));
  }
  std::vector<std::string> arguments = WithDashes(argc, argv);
  std::reverse(arguments.begin(), arguments.end());  // as CLI11 wants them
  try {
    app.parse(std::move(arguments));
  } catch (const CLI::CallForAllHelp&) {
    for (CLI::Option* option : app.get_options()) {
      if (option->get_group() == kHidden) option->group("Needed by few");
    }
    std::cout << app.help();
    return kExitOk;
  } catch (const CLI::Success& success) {
    app.exit(success, std::cout, std::cerr);
    return kExitOk;
  } catch (const CLI::ParseError& error) {
    PrintError(app.get_name(), absl::StrCat(error.what(), " (see --help)"));
    return kExitUsage;
  }
  return std::nullopt;
}

int ReportFailure(absl::string_view program, const absl::Status& status) {
  PrintError(program, status.message());
  return kExitFailure;
}

int ReportUsageError(absl::string_view program, const absl::Status& status) {
  PrintError(program, absl::StrCat(status.message(), " (see --help)"));
  return kExitUsage;
}

Progress::Progress(std::string label, uint64_t total)
    : Progress(std::move(label), total, stderr, isatty(STDERR_FILENO) == 1, WallClock()) {}

Progress::Progress(
    std::string label, uint64_t total, std::FILE* out, bool is_terminal, const Clock& clock)
    : label_(std::move(label)),
      total_(total),
      out_(out),
      is_terminal_(is_terminal),
      clock_(clock),
      start_(clock.Now()) {
  PREGATE_CHECK(total > 0);
}

Progress::~Progress() {
  if (!is_drawn_) return;
  absl::FPrintF(out_, "\r\033[K");
  std::fflush(out_);
}

void Progress::Advance(uint64_t amount) {
  done_ += amount;
  const uint64_t percent =
      static_cast<uint64_t>(100.0 * static_cast<double>(done_) / static_cast<double>(total_));
  const uint64_t step = is_terminal_ ? 1 : 10;
  if (percent < shown_percent_ + step) return;
  if (ToSeconds(clock_.Now() - start_) < kQuietSeconds) return;
  shown_percent_ = percent - percent % step;
  if (is_terminal_) {
    DrawBar(percent);
  } else {
    absl::FPrintF(out_, "%s: %d %%\n", label_, shown_percent_);
  }
  std::fflush(out_);
}

void Progress::DrawBar(uint64_t percent) {
  const auto filled = static_cast<size_t>(std::min<uint64_t>(percent, 100) * kBarWidth / 100);
  absl::FPrintF(out_,
                "\r%s [%s%s] %3d %%\033[K",
                label_,
                std::string(filled, '='),
                std::string(kBarWidth - filled, ' '),
                percent);
  is_drawn_ = true;
}

}  // namespace pregate
