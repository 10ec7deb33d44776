#include "core/storage/whole_file.h"

#include <filesystem>

#include "gtest/gtest.h"
#include "tests/support/temp_folder.h"

namespace pregate {
namespace {

TEST(WholeFile, ComesBackAsItWasWritten) {
  const TempFolder folder;
  const std::string path = folder / "file";
  for (const std::string& bytes :
       {std::string("one\0two", 7), std::string(), std::string(99999, 'x')}) {
    ASSERT_TRUE(WriteWholeFile(path, bytes).ok());
    EXPECT_EQ(ReadWholeFile(path, 99999).value(), bytes);
  }
  EXPECT_FALSE(std::filesystem::exists(path + ".partial"));
}

TEST(WholeFile, LeavesTheOldOneWhenTheNewOneFails) {
  const TempFolder folder;
  const std::string path = folder.Write("file", "old");
  std::filesystem::create_directory(path + ".partial");  // cannot be written
  EXPECT_FALSE(WriteWholeFile(path, "new").ok());
  EXPECT_EQ(ReadWholeFile(path, 100).value(), "old");
}

TEST(WholeFile, IsNotFoundOrTooLarge) {
  const TempFolder folder;
  EXPECT_EQ(ReadWholeFile(folder / "none", 100).status().code(), absl::StatusCode::kNotFound);
  const absl::Status status = ReadWholeFile(folder.Write("file", "12345"), 4).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(status.message().find("has 5 bytes; at most 4 are read"), absl::string_view::npos);
}

TEST(Checksum, DiffersForEveryFlippedBit) {
  const std::string bytes = "learned";
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    std::string other = bytes;
    other[bit / 8] = static_cast<char>(other[bit / 8] ^ 1 << bit % 8);
    EXPECT_NE(Checksum(other), Checksum(bytes));
  }
}

}  // namespace
}  // namespace pregate
