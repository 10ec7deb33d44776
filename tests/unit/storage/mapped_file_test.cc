#include "core/storage/mapped_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/temp_folder.h"

namespace pregate {
namespace {

using ::testing::HasSubstr;

std::string Text(const MappedFile& file) {
  return std::string(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
}

TEST(MappedFile, ShowsTheFilesBytes) {
  const TempFolder folder;
  const std::string path = folder.Write("a", "some bytes");
  const auto file = MappedFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(Text(*file), "some bytes");
  EXPECT_EQ(file->path(), path);
}

TEST(MappedFile, OfNothingIsEmpty) {
  const TempFolder folder;
  const auto file = MappedFile::Open(folder.Write("empty", ""));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_TRUE(file->bytes().empty());
}

TEST(MappedFile, KeepsItsBytesInPlaceWhenMoved) {
  const TempFolder folder;
  MappedFile first = *MappedFile::Open(folder.Write("1", "first"));
  const std::byte* address = first.bytes().data();
  MappedFile moved = std::move(first);
  EXPECT_EQ(moved.bytes().data(), address);
  EXPECT_TRUE(first.bytes().empty());  // NOLINT(bugprone-use-after-move): that is the point

  moved = *MappedFile::Open(folder.Write("2", "second"));
  EXPECT_EQ(Text(moved), "second");
}

TEST(MappedFile, KeepsTheBytesOfAFileThatIsReplaced) {
  const TempFolder folder;
  const std::string path = folder.Write("a", "old");
  const MappedFile file = *MappedFile::Open(path);
  ASSERT_EQ(rename(folder.Write("b", "new").c_str(), path.c_str()), 0);
  EXPECT_EQ(Text(file), "old");
}

TEST(MappedFile, SaysWhatIsMissing) {
  const TempFolder folder;
  const auto file = MappedFile::Open(folder / "none");
  EXPECT_EQ(file.status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(file.status().message(),
            "cannot open " + (folder / "none") + ": No such file or directory");
}

TEST(MappedFile, RefusesAFolder) {
  const TempFolder folder;
  const auto file = MappedFile::Open(folder.path());
  EXPECT_EQ(file.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(file.status().message()), HasSubstr(folder.path() + ": it is a folder"));
}

TEST(MappedFile, RefusesAPipeWithoutWaitingForItsWriter) {
  const TempFolder folder;
  ASSERT_EQ(mkfifo((folder / "pipe").c_str(), 0600), 0);
  EXPECT_EQ(MappedFile::Open(folder / "pipe").status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST(MappedFile, RefusesWhatItMayNotRead) {
  if (geteuid() == 0) GTEST_SKIP() << "root may read everything";
  const TempFolder folder;
  const std::string path = folder.Write("secret", "x");
  ASSERT_EQ(chmod(path.c_str(), 0), 0);
  const auto file = MappedFile::Open(path);
  EXPECT_EQ(file.status().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(std::string(file.status().message()), HasSubstr(path));
}

}  // namespace
}  // namespace pregate
