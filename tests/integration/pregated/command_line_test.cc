// What the daemon says to a command line or a configuration that it cannot serve with.
#include <algorithm>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/pregated/daemon.h"
#include "tests/support/temp_folder.h"

namespace pregate {
namespace {

using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::Not;
using ::testing::StartsWith;

ProgramResult RunPregated(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), BuiltProgram("pregated"));
  return RunProgram(arguments);
}

// `arguments` are a usage error, told on one line that contains `what`.
void ExpectUsageError(const std::vector<std::string>& arguments, const std::string& what) {
  const ProgramResult result = RunPregated(arguments);
  EXPECT_EQ(result.exit_code, 2) << result.err;
  EXPECT_EQ(result.out, "");
  EXPECT_THAT(result.err, MatchesRegex("pregated: [^\n]*\n"));
  EXPECT_THAT(result.err, HasSubstr(what));
}

TEST(CommandLineTest, HelpFitsAScreen) {
  const ProgramResult result = RunPregated({"--help"});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(result.out, HasSubstr("--expert-capacity"));
  EXPECT_THAT(result.out, HasSubstr("--help-all"));
  EXPECT_LE(std::count(result.out.begin(), result.out.end(), '\n'), 50);
}

TEST(CommandLineTest, HelpAllShowsWhatFewNeedToo) {
  const ProgramResult result = RunPregated({"--help-all"});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(result.out, HasSubstr("--expert-capacity"));
  EXPECT_THAT(result.out, HasSubstr("--verify-slots"));
  EXPECT_THAT(RunPregated({"--help"}).out, Not(HasSubstr("--verify-slots")));
}

TEST(CommandLineTest, AnUnknownFlagIsAUsageError) {
  ExpectUsageError({"--model", ShippedModel("switch-mini"), "--modle", "x"}, "--modle");
}

TEST(CommandLineTest, AMissingModelIsAUsageError) { ExpectUsageError({}, "--model"); }

TEST(CommandLineTest, AValueOutOfRangeIsAUsageErrorThatNamesTheFlag) {
  ExpectUsageError({"--model", "x", "--max-running", "0"}, "--max-running");
  ExpectUsageError({"--model", "x", "--dtype", "float8"}, "--dtype");
  ExpectUsageError({"--model", "x", "--listen", "nowhere"}, "--listen");
}

TEST(CommandLineTest, OtherMachinesAreLetInOnlyWhenAskedFor) {
  ExpectUsageError({"--model", "x", "--listen", "0.0.0.0:50051"}, "--insecure");
  EXPECT_EQ(
      RunPregated({"--check-config", "--model", "x", "--listen", "0.0.0.0:50051", "--insecure"})
          .exit_code,
      0);
}

TEST(CommandLineTest, ABadCertificateOrTokenFileIsNamedAtTheStart) {
  const TempFolder folder;
  const std::string empty = folder.Write("empty", "");
  const std::vector<std::string> model = {"--check-config", "--model", "x"};
  const auto expect_error = [&](std::vector<std::string> more, const std::string& what) {
    more.insert(more.begin(), model.begin(), model.end());
    ExpectUsageError(more, what);
  };
  expect_error({"--tls-cert", empty}, "--tls-key is missing");
  expect_error({"--tls-cert", empty, "--tls-key", empty},
               empty + ": has no certificate in PEM form");
  expect_error({"--auth-token-file", folder / "none"},
               "cannot open " + folder / "none" + ": No such file or directory");
  expect_error({"--admin-token-file", empty}, empty + ": no token in it");
}

TEST(CommandLineTest, TwoListenersCannotShareAPort) {
  ExpectUsageError(
      {"--model", "x", "--listen", "127.0.0.1:8002", "--http-listen", "127.0.0.1:8002"},
      "127.0.0.1:8002");
}

TEST(CommandLineTest, AnUnknownFieldOfTheConfigurationIsNamedWithItsLine) {
  const TempFolder folder;
  const std::string config = folder.Write("pregated.textproto", "model: 'x'\nmodle: 'y'\n");
  const ProgramResult result = RunPregated({"--config", config});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, AllOf(StartsWith("pregated: " + config + ":2:"), HasSubstr("modle")));
}

TEST(CommandLineTest, AContradictoryConfigurationIsNamedWithItsLine) {
  const TempFolder folder;
  const std::string twice = folder.Write("twice.textproto", "model: 'x'\nmodel: 'y'\n");
  ExpectUsageError({"--config", twice}, twice + ":2:");
  const std::string bad = folder.Write("bad.textproto", "model: 'x'\n\nmax_running: 0\n");
  ExpectUsageError({"--config", bad}, bad + ":3: max_running: ");
}

TEST(CommandLineTest, AnUnreadableConfigurationIsNamed) {
  const TempFolder folder;
  ExpectUsageError({"--config", folder / "none.textproto"}, folder / "none.textproto");
  ExpectUsageError({"--config", folder.path()}, folder.path());
}

TEST(CommandLineTest, FlagsOverrideTheConfiguration) {
  const TempFolder folder;
  const std::string config =
      folder.Write("pregated.textproto", "model: 'x' listen: '0.0.0.0:50051'");
  ExpectUsageError({"--config", config}, "0.0.0.0:50051");
  const ProgramResult result =
      RunPregated({"--check-config", "--config", config, "--listen", "127.0.0.1:50051"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, EndsWith("valid\n"));
}

}  // namespace
}  // namespace pregate
