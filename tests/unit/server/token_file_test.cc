#include "server/token_file.h"

#include <filesystem>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/temp_folder.h"

namespace pregate {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kAbcDigest[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

class TokenFileTest : public ::testing::Test {
 protected:
  std::unique_ptr<TokenFile> Load(const std::string& text) {
    return TokenFile::Load(folder_.Write("tokens", text), logger_).value();
  }
  // Why such a file is refused, behind its path.
  std::string Complaint(const std::string& text) {
    const std::string path = folder_.Write("tokens", text);
    const absl::Status status = TokenFile::Load(path, logger_).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_EQ(status.message().find(path), 0u) << status;
    return std::string(status.message().substr(path.size()));
  }

  const TempFolder folder_;
  std::string log_;
  const Logger logger_{LogLevel::kDebug, LogFormat::kText, [this](const std::string& line) {
                         absl::StrAppend(&log_, line, "\n");
                       }};
};

TEST_F(TokenFileTest, KnowsEachLinesTokenByItsName) {
  const auto file =
      Load("# of the team\n\nfirst-token alice\n  second\tbob \r\nabc\nthird alice\n");
  EXPECT_EQ(file->NameOf("first-token"), "alice");
  EXPECT_EQ(file->NameOf("second"), "bob");
  EXPECT_EQ(file->NameOf("third"), "alice") << "rotation: two at once";
  EXPECT_EQ(file->NameOf("abc"), "token-ba7816bf") << "a name of its own";
  for (const char* unknown : {"", "first", "first-token ", "alice", "#", "FIRST-TOKEN"})
    EXPECT_EQ(file->NameOf(unknown), std::nullopt) << unknown;
}

TEST_F(TokenFileTest, TakesDigestsForTokens) {
  const auto file = Load(absl::StrCat("sha256:", kAbcDigest, " carol\n"));
  EXPECT_EQ(file->NameOf("abc"), "carol");
  EXPECT_EQ(file->NameOf(absl::StrCat("sha256:", kAbcDigest)), std::nullopt)
      << "who can read the file has no token";
  EXPECT_EQ(file->NameOf(kAbcDigest), std::nullopt);
}

TEST_F(TokenFileTest, NamesTheLineThatIsWrongButNotWhatIsInIt) {
  EXPECT_EQ(Complaint("# none\n\n"), ": no token in it");
  EXPECT_EQ(Complaint("good\nsecret of mine\n"), ":2: more than a token and a name");
  EXPECT_EQ(Complaint("s\xc3\xa9kret\n"), ":1: the token is not of visible ASCII characters");
  EXPECT_EQ(Complaint("secret a/b"), ":1: the name is not of up to 64 letters, digits or '._@-'");
  EXPECT_EQ(Complaint("secret " + std::string(65, 'n')),
            ":1: the name is not of up to 64 letters, digits or '._@-'");
  EXPECT_EQ(Complaint("sha256:secret"), ":1: behind 'sha256:' there are not 64 hexadecimal digits");
}

TEST_F(TokenFileTest, FollowsTheFile) {
  const auto file = Load("old alice\n");
  folder_.Write("tokens", "old alice\nnew alice\n");
  EXPECT_EQ(file->NameOf("new"), std::nullopt);
  file->Refresh();
  EXPECT_EQ(file->NameOf("new"), "alice");
  EXPECT_EQ(file->NameOf("old"), "alice");
  folder_.Write("tokens", "new alice\n");
  file->Refresh();
  EXPECT_EQ(file->NameOf("old"), std::nullopt);
}

TEST_F(TokenFileTest, KeepsWhatItKnewWhenTheFileGoesBad) {
  const auto file = Load("old-secret alice\n");
  folder_.Write("tokens", "new-secret alice and bob\n");
  file->Refresh();
  EXPECT_EQ(file->NameOf("old-secret"), "alice");
  EXPECT_THAT(log_, HasSubstr("ERROR tokens not taken over, the old ones stay"));
  EXPECT_THAT(log_, HasSubstr("/tokens:1: more than a token and a name"));
  std::filesystem::remove(folder_ / "tokens");
  file->Refresh();
  EXPECT_EQ(file->NameOf("old-secret"), "alice");
  EXPECT_THAT(log_, HasSubstr("No such file or directory"));
  EXPECT_THAT(log_, Not(HasSubstr("secret"))) << "no token in any line";
}

}  // namespace
}  // namespace pregate
