#include "bench/corpus.h"

#include <zstd.h>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/temp_folder.h"

namespace pregate {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string Compressed(const std::string& text) {
  std::string bytes(ZSTD_compressBound(text.size()), '\0');
  bytes.resize(ZSTD_compress(bytes.data(), bytes.size(), text.data(), text.size(), 3));
  return bytes;
}

TEST(SplitDocuments, EndsThemAtLinesOfU001e) {
  EXPECT_THAT(SplitDocuments("a\nb\n\x1e\nc\n\x1e\n"), ElementsAre("a\nb\n", "c\n"));
  EXPECT_THAT(SplitDocuments("a\n\x1e\nb"), ElementsAre("a\n", "b"));
  EXPECT_THAT(SplitDocuments("a\n\x1e"), ElementsAre("a\n")) << "no line feed at the end";
  EXPECT_THAT(SplitDocuments("\x1e\n\x1e\n"), ElementsAre("", "")) << "documents may be empty";
  EXPECT_THAT(SplitDocuments(""), IsEmpty());
}

TEST(SplitDocuments, LeavesU001eInsideALineAlone) {
  EXPECT_THAT(SplitDocuments("a\x1e\n\x1e b\n\x1e\x1e\n"),
              ElementsAre("a\x1e\n\x1e b\n\x1e\x1e\n"));
}

TEST(ReadText, ReadsPlainAndCompressedFiles) {
  const TempFolder folder;
  std::string text;
  for (int i = 0; i < 100'000; ++i) text += std::to_string(i % 977);
  EXPECT_EQ(*ReadText(folder.Write("a.txt", text)), text);
  EXPECT_EQ(*ReadText(folder.Write("a.txt.zst", Compressed(text))), text);
  EXPECT_EQ(*ReadText(folder.Write("two.zst", Compressed("one ") + Compressed("two"))), "one two");
  EXPECT_EQ(*ReadText(folder.Write("empty.zst", Compressed(""))), "");
}

TEST(ReadText, NamesTheFileAtFault) {
  const TempFolder folder;
  EXPECT_EQ(ReadText(folder / "none").status().code(), absl::StatusCode::kNotFound);
  const std::string whole = Compressed("some text that is long enough");
  EXPECT_EQ(ReadText(folder.Write("cut.zst", whole.substr(0, whole.size() - 3))).status(),
            absl::InvalidArgumentError(folder / "cut.zst" + ": the zstd data is truncated"));
  EXPECT_THAT(std::string(ReadText(folder.Write("text.zst", "plain text")).status().message()),
              HasSubstr("text.zst: Unknown frame descriptor"));
}

}  // namespace
}  // namespace pregate
