#include "server/text_stream.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/unit/text/tokenizer_files.h"

namespace pregate {
namespace {

class TextStreamTest : public ::testing::Test {
 protected:
  // One id per byte of `text`, whatever characters the bytes belong to. The vocabulary is in
  // GPT-2's order: the printable bytes of Latin-1, then the others, both ascending.
  static std::vector<uint32_t> Bytes(const std::string& text) {
    const auto is_printable = [](uint32_t byte) {
      return (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte != 0xad);
    };
    std::vector<uint32_t> ids;
    for (const char c : text) {
      const auto byte = static_cast<unsigned char>(c);
      uint32_t id = 0;
      for (uint32_t other = 0; other < 256; ++other) {
        if (is_printable(other) == is_printable(byte) ? other < byte : is_printable(other)) ++id;
      }
      ids.push_back(id);
    }
    return ids;
  }
  TextStream Stream(std::vector<std::string> stop) const {
    return TextStream(*tokenizer_, {}, std::move(stop));
  }
  // What becomes certain with each of the tokens.
  static std::vector<std::string> Pieces(TextStream& stream, const std::vector<uint32_t>& ids) {
    std::vector<std::string> pieces;
    for (const uint32_t id : ids) {
      EXPECT_TRUE(stream.Append(id).ok());
      pieces.push_back(stream.Take());
    }
    return pieces;
  }

  const std::unique_ptr<Tokenizer> tokenizer_ = Load(ByteLevelTokenizer());
};

using Strings = std::vector<std::string>;

TEST_F(TextStreamTest, WithoutStopStringsNothingIsKeptBack) {
  TextStream stream = Stream({});
  EXPECT_EQ(Pieces(stream, Bytes("abc")), (Strings{"a", "b", "c"}));
  EXPECT_TRUE(stream.Finish().ok());
  EXPECT_EQ(stream.Take(), "");
  EXPECT_FALSE(stream.matched().has_value());
}

TEST_F(TextStreamTest, KeepsBackWhatMayBeginAStopString) {
  TextStream stream = Stream({"END"});
  EXPECT_EQ(Pieces(stream, Bytes("aENbEND")), (Strings{"a", "", "", "ENb", "", "", ""}));
  EXPECT_EQ(stream.matched(), "END");
  EXPECT_TRUE(stream.Finish().ok());
  EXPECT_EQ(stream.Take(), "") << "what matched is not part of the text";
}

TEST_F(TextStreamTest, GivesTheRestAtTheEnd) {
  TextStream stream = Stream({"END"});
  EXPECT_EQ(Pieces(stream, Bytes("xEN")), (Strings{"x", "", ""}));
  EXPECT_TRUE(stream.Finish().ok());
  EXPECT_EQ(stream.Take(), "EN");
  EXPECT_FALSE(stream.matched().has_value());
}

TEST_F(TextStreamTest, FindsAStopStringBehindItsOwnBeginning) {
  TextStream stream = Stream({"aab"});
  EXPECT_EQ(Pieces(stream, Bytes("aaab")), (Strings{"", "", "a", ""}));
  EXPECT_EQ(stream.matched(), "aab");
}

TEST_F(TextStreamTest, FindsAStopStringInsideAToken) {
  TextStream stream = Stream({"h"});
  ASSERT_TRUE(stream.Append(258).ok());  // " the"
  EXPECT_EQ(stream.Take(), " t");
  EXPECT_EQ(stream.matched(), "h");
}

TEST_F(TextStreamTest, OfSeveralTheOneThatBeginsFirst) {
  TextStream stream = Stream({"he", "the", "e"});
  ASSERT_TRUE(stream.Append(258).ok());  // " the"
  EXPECT_EQ(stream.Take(), " ");
  EXPECT_EQ(stream.matched(), "the");
}

TEST_F(TextStreamTest, ALongerStopStringDoesNotHideAShorterOne) {
  TextStream stream = Stream({"abcd", "bc"});
  EXPECT_EQ(Pieces(stream, Bytes("abc")), (Strings{"", "", "a"}));
  EXPECT_EQ(stream.matched(), "bc");
}

TEST_F(TextStreamTest, NeverCutsACharacter) {
  TextStream stream = Stream({"本"});
  EXPECT_EQ(Pieces(stream, Bytes("é日!")), (Strings{"", "é", "", "", "日", "!"}));
  EXPECT_EQ(Pieces(stream, Bytes("本")), (Strings{"", "", ""}));
  EXPECT_EQ(stream.matched(), "本");
}

TEST_F(TextStreamTest, AnUnfinishedCharacterComesAtTheEnd) {
  TextStream stream = Stream({"x"});
  EXPECT_EQ(Pieces(stream, Bytes("\xe6")), Strings{""});
  EXPECT_TRUE(stream.Finish().ok());
  EXPECT_EQ(stream.Take(), "\xEF\xBF\xBD");
}

TEST_F(TextStreamTest, SpecialTokensAreNotShown) {
  TextStream stream = Stream({});
  EXPECT_EQ(Pieces(stream, {259, 256}), (Strings{"", "he"}));
}

TEST_F(TextStreamTest, AnIdWithoutATokenIsAnErrorThatChangesNothing) {
  TextStream stream = Stream({});
  EXPECT_EQ(stream.Append(299).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Pieces(stream, {256}), Strings{"he"});
}

TEST_F(TextStreamTest, ThePromptIsNotSearchedAndNotShown) {
  const std::vector<uint32_t> prompt = Bytes("EN");
  TextStream stream(*tokenizer_, prompt, {"END"});
  EXPECT_EQ(Pieces(stream, Bytes("Dx")), (Strings{"D", "x"}));
}

TEST_F(TextStreamTest, ContinuesAPromptOfATokenizerThatStripsTheFirstSpace) {
  const std::unique_ptr<Tokenizer> llama = Load(LlamaStyleTokenizer());
  TextStream fresh(*llama, {}, {});
  ASSERT_TRUE(fresh.Append(288).ok());  // "▁the"
  ASSERT_TRUE(fresh.Finish().ok());
  EXPECT_EQ(fresh.Take(), "the");
  const std::vector<uint32_t> prompt = {288};
  TextStream continued(*llama, prompt, {});
  ASSERT_TRUE(continued.Append(288).ok());
  ASSERT_TRUE(continued.Finish().ok());
  EXPECT_EQ(continued.Take(), " the");
}

}  // namespace
}  // namespace pregate
