#include "tools/cli.h"

#include <cstdlib>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/fake_clock.h"

namespace pregate {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

// A program with the engine's flags and a switch.
struct Fixture {
  Fixture() {
    AddFlags(app, EngineFlags(options));
    AddFlags(app, {SwitchFlag("insecure", "allow it", insecure)});
    app.add_option("PROMPT", prompt);
  }
  std::optional<int> Parse(std::vector<const char*> arguments) {
    arguments.insert(arguments.begin(), "program");
    return ParseCommandLine(app, static_cast<int>(arguments.size()), arguments.data());
  }

  CLI::App app{"Does nothing.", "program"};
  EngineOptions options;
  bool insecure = false;
  std::string prompt;
};

TEST(CommandLine, StoresFlags) {
  Fixture program;
  EXPECT_EQ(program.Parse({"--max-running", "7", "--model=/m", "--insecure", "text"}),
            std::nullopt);
  EXPECT_EQ(program.options.max_running, 7u);
  EXPECT_EQ(program.options.model, "/m");
  EXPECT_TRUE(program.insecure);
  EXPECT_EQ(program.prompt, "text");
}

TEST(CommandLine, TakesUnderscoresInNamesAlone) {
  Fixture program;
  EXPECT_EQ(program.Parse({"--max_running", "7", "--served_model_name=a_b", "--", "--x_y"}),
            std::nullopt);
  EXPECT_EQ(program.options.max_running, 7u);
  EXPECT_EQ(program.options.served_model_name, "a_b");
  EXPECT_EQ(program.prompt, "--x_y");
}

TEST(CommandLine, LetsTheLastCount) {
  Fixture program;
  EXPECT_EQ(program.Parse({"--max-running", "7", "--max-running", "8", "--insecure=false"}),
            std::nullopt);
  EXPECT_EQ(program.options.max_running, 8u);
  EXPECT_FALSE(program.insecure);
}

TEST(CommandLine, LeavesWhatFewNeedToHelpAll) {
  const auto help = [](const char* flag) {
    CLI::App app("Does nothing.", "program");
    bool ignored = false;
    Flag rare = SwitchFlag("odd", "for few", ignored);
    rare.is_rare = true;
    AddFlags(app, {SwitchFlag("even", "for all", ignored), rare});
    const char* const arguments[] = {"program", flag};
    ::testing::internal::CaptureStdout();
    EXPECT_EQ(ParseCommandLine(app, 2, arguments), kExitOk);
    return ::testing::internal::GetCapturedStdout();
  };
  EXPECT_THAT(help("--help"), AllOf(HasSubstr("--even"), HasSubstr("--help-all")));
  EXPECT_THAT(help("--help"), Not(HasSubstr("--odd")));
  EXPECT_THAT(help("--help-all"), AllOf(HasSubstr("--even"), HasSubstr("--odd")));
}

TEST(CommandLine, StoresAgainWhenParsedAgain) {
  Fixture program;
  ASSERT_EQ(program.Parse({"--max-running", "7"}), std::nullopt);
  program.options.max_running = 3;  // as a configuration file would
  program.options.max_queued = 4;
  ASSERT_EQ(program.Parse({"--max-running", "7"}), std::nullopt);
  EXPECT_EQ(program.options.max_running, 7u);
  EXPECT_EQ(program.options.max_queued, 4u);
}

std::string UsageError(const std::vector<const char*>& arguments) {
  Fixture program;
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(program.Parse(arguments), kExitUsage);
  return ::testing::internal::GetCapturedStderr();
}

TEST(CommandLine, SaysWhatIsWrongInOneLine) {
  EXPECT_EQ(UsageError({"--max-running", "0"}),
            "program: --max-running: '0' is not a whole number from 1 to 4096 (see --help)\n");
  EXPECT_THAT(UsageError({"--no-such-flag"}), HasSubstr("--no-such-flag"));
  EXPECT_THAT(UsageError({"--max-running"}), StartsWith("program: --max-running"));
}

TEST(CommandLine, EndsAfterHelpAndVersion) {
  Fixture program;
  ::testing::internal::CaptureStdout();
  EXPECT_EQ(program.Parse({"--version"}), kExitOk);
  EXPECT_EQ(::testing::internal::GetCapturedStdout(), absl::StrCat("program ", Version(), "\n"));
  ::testing::internal::CaptureStdout();
  EXPECT_EQ(program.Parse({"--help"}), kExitOk);
  const std::string help = ::testing::internal::GetCapturedStdout();
  for (const char* expected : {"--max-running N", "--insecure", "--device auto|cpu|cuda[:N]"}) {
    EXPECT_THAT(help, HasSubstr(expected));
  }
}

// What Progress prints when `steps` amounts of 1 of `total` each take a second.
std::string Shown(bool is_terminal, uint64_t total, uint64_t steps) {
  char* text = nullptr;
  size_t size = 0;
  std::FILE* out = open_memstream(&text, &size);
  {
    FakeClock clock;
    Progress progress("work", total, out, is_terminal, clock);
    for (uint64_t i = 0; i < steps; ++i) {
      clock.Advance(FromSeconds(1));
      progress.Advance(1);
    }
  }
  std::fclose(out);
  const std::string shown(text, size);
  std::free(text);
  return shown;
}

TEST(Progress, IsALineForEachTenthWithoutATerminal) {
  EXPECT_EQ(Shown(false, 4, 4), "work: 50 %\nwork: 70 %\nwork: 100 %\n");
  EXPECT_EQ(Shown(false, 100, 100),
            "work: 10 %\nwork: 20 %\nwork: 30 %\nwork: 40 %\nwork: 50 %\n"
            "work: 60 %\nwork: 70 %\nwork: 80 %\nwork: 90 %\nwork: 100 %\n");
}

TEST(Progress, IsABarOnATerminalAndIsErased) {
  EXPECT_EQ(Shown(true, 4, 2),
            "\rwork [===============               ]  50 %\x1b[K"
            "\r\x1b[K");
}

TEST(Progress, IsSilentForShortWork) {
  EXPECT_EQ(Shown(false, 1, 1), "");
  EXPECT_EQ(Shown(true, 1, 1), "");
}

}  // namespace
}  // namespace pregate
