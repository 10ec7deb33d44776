#include "client/input.h"

#include "gmock/gmock.h"
#include "tests/support/temp_folder.h"

namespace pregate {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

absl::StatusOr<std::string> ReadWith(const std::vector<std::string>& arguments) {
  TextInput input;
  CLI::App app;
  input.AddTo(app, "PROMPT", "");
  app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
  return input.Read();
}

TEST(TextInputTest, AnArgumentIsTakenAsItIs) {
  EXPECT_EQ(*ReadWith({"a b\n"}), "a b\n");
  EXPECT_EQ(*ReadWith({""}), "");
  EXPECT_EQ(*ReadWith({"{}"}), "{}");
  EXPECT_EQ(*ReadWith({"[a,b]"}), "[a,b]");
}

TEST(TextInputTest, AFileLosesOneNewline) {
  const TempFolder folder;
  EXPECT_EQ(*ReadWith({"--file", folder.Write("one", "text\n\n")}), "text\n");
  EXPECT_EQ(*ReadWith({"--file", folder.Write("none", "text")}), "text");
  EXPECT_EQ(*ReadWith({"--file", folder.Write("empty", "")}), "");
  const std::string binary("\0\xff\r\n", 4);
  EXPECT_EQ(*ReadWith({"--file", folder.Write("binary", binary)}), binary.substr(0, 3));
}

TEST(TextInputTest, SaysWhatIsWrong) {
  EXPECT_EQ(ReadWith({"--file", "/nonexistent"}).status(),
            absl::NotFoundError("cannot open /nonexistent: No such file or directory"));
  EXPECT_EQ(ReadWith({"--file", ""}).status(),
            absl::NotFoundError("cannot open : No such file or directory"));
  EXPECT_EQ(ReadWith({"--file", "/"}).status(),
            absl::UnavailableError("cannot read /: Is a directory"));
  EXPECT_EQ(ReadWith({"text", "--file", "/nonexistent"}).status(),
            absl::InvalidArgumentError("both PROMPT and --file are given"));
}

TEST(ParseTokenIdsTest, ReadsWhatTokenizePrints) {
  EXPECT_THAT(*ParseTokenIds("1 2 3"), ElementsAre(1, 2, 3));
  EXPECT_THAT(*ParseTokenIds("1,2, 4294967295\n"), ElementsAre(1, 2, 4294967295));
  EXPECT_THAT(*ParseTokenIds(""), IsEmpty());
}

TEST(ParseTokenIdsTest, NamesWhatIsNone) {
  for (const char* const word : {"x", "-1", "4294967296", "1.5"}) {
    EXPECT_EQ(ParseTokenIds(absl::StrCat("1 ", word)).status(),
              absl::InvalidArgumentError(absl::StrCat("\"", word, "\" is not a token id")));
  }
}

}  // namespace
}  // namespace pregate
