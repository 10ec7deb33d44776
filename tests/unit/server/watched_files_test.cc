#include "server/watched_files.h"

#include <filesystem>
#include <string>

#include "absl/strings/escaping.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/temp_folder.h"

namespace pregate {
namespace {

using ::testing::ElementsAre;

TEST(Sha256, IsThatOfTheStandard) {
  const Sha256Digest digest = Sha256("abc");  // FIPS 180-2, B.1
  EXPECT_EQ(absl::BytesToHexString(std::string(digest.begin(), digest.end())),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(WatchedFiles, TellsOfEachChangeOnce) {
  const TempFolder folder;
  const std::string a = folder.Write("a", "one");
  const std::string b = folder.Write("b", "two");
  WatchedFiles files({a, b});
  EXPECT_THAT(**files.Look(), ElementsAre("one", "two"));
  EXPECT_FALSE(files.Look().has_value());
  folder.Write("b", "TWO");  // of the same size, within the same tick
  EXPECT_THAT(**files.Look(), ElementsAre("one", "TWO"));
  EXPECT_FALSE(files.Look().has_value());
  folder.Write("a", "onetwo");
  folder.Write("b", "");
  EXPECT_THAT(**files.Look(), ElementsAre("onetwo", ""));
}

TEST(WatchedFiles, TellsOnceWhyAFileCannotBeRead) {
  const TempFolder folder;
  WatchedFiles files({folder / "a"});
  EXPECT_EQ(files.Look()->status().code(), absl::StatusCode::kNotFound);
  EXPECT_FALSE(files.Look().has_value());
  folder.Write("a", "one");
  EXPECT_THAT(**files.Look(), ElementsAre("one"));
  std::filesystem::remove(folder / "a");
  EXPECT_EQ(files.Look()->status().code(), absl::StatusCode::kNotFound);
}

TEST(WatchedFiles, ReadsNoMoreThanAMebibyte) {
  const TempFolder folder;
  std::filesystem::resize_file(folder.Write("a", ""), WatchedFiles::kMaxBytes + 1);
  WatchedFiles files({folder / "a"});
  EXPECT_EQ(files.Look()->status().code(), absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace pregate
