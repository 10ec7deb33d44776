#include "core/base/log.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace pregate {
namespace {

using ::testing::HasSubstr;
using ::testing::MatchesRegex;

TEST(Logger, WritesTextAsOneLineWithQuotedValues) {
  std::string line;
  const Logger logger(LogLevel::kInfo, LogFormat::kText, [&](const std::string& l) { line = l; });
  logger.Warning(
      "queue full",
      {{"waiting", 256}, {"method", "Generate"}, {"detail", "a b\n\"c\""}, {"empty", ""}});
  EXPECT_THAT(line, MatchesRegex("[-0-9T:.]+Z WARNING queue full .*\n"));
  EXPECT_THAT(line,
              HasSubstr("waiting=256 method=Generate detail=\"a b\\u000a\\\"c\\\"\" empty=\"\"\n"));
}

TEST(Logger, WritesJson) {
  std::string line;
  const Logger logger(LogLevel::kInfo, LogFormat::kJson, [&](const std::string& l) { line = l; });
  logger.Error("it \"broke\"", {{"code", "INTERNAL"}});
  EXPECT_THAT(line, HasSubstr(R"("level":"error","message":"it \"broke\"","code":"INTERNAL"})"));
}

TEST(Logger, DropsWhatIsBelowItsLevel) {
  int lines = 0;
  const Logger logger(LogLevel::kWarning, LogFormat::kText, [&](const std::string&) { ++lines; });
  logger.Info("quiet");
  logger.Error("loud");
  EXPECT_EQ(lines, 1);
}

TEST(ParseLogLevel, ListsTheChoices) {
  EXPECT_EQ(*ParseLogLevel("debug"), LogLevel::kDebug);
  EXPECT_THAT(std::string(ParseLogLevel("loud").status().message()),
              HasSubstr("debug, info, warning, error"));
  EXPECT_THAT(std::string(ParseLogFormat("xml").status().message()), HasSubstr("text, json"));
}

}  // namespace
}  // namespace pregate
