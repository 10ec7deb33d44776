#include "core/base/read_file.h"

#include <sys/stat.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/support/temp_folder.h"

namespace pregate {
namespace {

TEST(ReadFile, ReadsAsManyBytesAsThereMayBe) {
  const TempFolder folder;
  for (const size_t size : {0, 1, 65536, 200000}) {
    const std::string bytes(size, 'x');
    const std::string path = folder.Write("file", bytes);
    EXPECT_EQ(*ReadFile(path, size), bytes);
    if (size == 0) continue;
    EXPECT_EQ(ReadFile(path, size - 1).status(),
              absl::ResourceExhaustedError(
                  absl::StrCat(path, ": larger than the ", size - 1, " bytes that it may have")));
  }
}

TEST(ReadFile, NamesWhatCannotBeRead) {
  const TempFolder folder;
  EXPECT_EQ(ReadFile(folder / "none", 1).status(),
            absl::NotFoundError(
                absl::StrCat("cannot open ", folder / "none", ": No such file or directory")));
  EXPECT_EQ(ReadFile(folder.path(), 1).status().message(),
            absl::StrCat("cannot read ", folder.path(), ": Is a directory"));
}

TEST(ReadFile, WaitsForNoPipesWriter) {
  const TempFolder folder;
  ASSERT_EQ(mkfifo((folder / "pipe").c_str(), 0600), 0);
  EXPECT_EQ(*ReadFile(folder / "pipe", 1), "");
}

}  // namespace
}  // namespace pregate
