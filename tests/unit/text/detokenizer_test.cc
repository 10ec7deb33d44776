#include "core/text/detokenizer.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "rapidcheck.h"
#include "tests/unit/text/tokenizer_files.h"

namespace pregate {
namespace {

using testing::ElementsAre;

constexpr absl::string_view kReplacement = "\uFFFD";

// The piece of each token, and last what Flush gives.
std::vector<std::string> Pieces(const Tokenizer& tokenizer,
                                const std::vector<uint32_t>& ids,
                                bool skip_special_tokens = false) {
  Detokenizer detokenizer(tokenizer, skip_special_tokens);
  std::vector<std::string> pieces;
  for (const uint32_t id : ids) pieces.push_back(detokenizer.Append(id).value());
  pieces.push_back(detokenizer.Flush().value());
  return pieces;
}

TEST(DetokenizerTest, ByteLevelKeepsBackAnIncompleteCharacter) {
  const std::unique_ptr<Tokenizer> tokenizer = Load(ByteLevelTokenizer());
  std::vector<uint32_t> ids = tokenizer->Encode("aé", false).value();
  EXPECT_THAT(Pieces(*tokenizer, ids), ElementsAre("a", "", "é", ""));
  ids.pop_back();
  EXPECT_THAT(Pieces(*tokenizer, ids), ElementsAre("a", "", kReplacement));
  // What cannot become a character any more is replaced at once.
  ids.insert(ids.end(), {256, 258});
  EXPECT_THAT(Pieces(*tokenizer, ids), ElementsAre("a", "", "\uFFFDhe", " the", ""));
}

TEST(DetokenizerTest, ByteLevelSkipsSpecialTokensAndKnowsAddedOnes) {
  const std::unique_ptr<Tokenizer> tokenizer = Load(ByteLevelTokenizer());
  EXPECT_THAT(Pieces(*tokenizer, {259, 256, 260, 259}, true),
              ElementsAre("", "he", "日本", "", ""));
  EXPECT_THAT(Pieces(*tokenizer, {259, 260}), ElementsAre("<|end|>", "日本", ""));
}

TEST(DetokenizerTest, SentencePieceStripsOneLeadingSpace) {
  const std::unique_ptr<Tokenizer> tokenizer = Load(LlamaStyleTokenizer());
  EXPECT_THAT(Pieces(*tokenizer, {288, 288}), ElementsAre("the", " the", ""));
  EXPECT_THAT(Pieces(*tokenizer, {259, 259, 288}), ElementsAre("", " ", " the", ""));
  EXPECT_THAT(Pieces(*tokenizer, {1, 288}, true), ElementsAre("", "the", ""));
  // A byte can be that space too.
  EXPECT_THAT(Pieces(*tokenizer, {3 + ' ', 288}), ElementsAre("", " the", ""));
}

TEST(DetokenizerTest, SentencePieceKeepsBackARunOfBytes) {
  const std::unique_ptr<Tokenizer> tokenizer = Load(LlamaStyleTokenizer());
  const uint32_t e4 = 3 + 0xE4, bd = 3 + 0xBD, a0 = 3 + 0xA0, letter = 260;
  EXPECT_THAT(Pieces(*tokenizer, {e4, bd, a0, letter}), ElementsAre("", "", "", "你a", ""));
  EXPECT_THAT(Pieces(*tokenizer, {e4, bd, a0}), ElementsAre("", "", "", "你"));
  // One bad byte replaces the whole run, the good character before it too.
  EXPECT_THAT(Pieces(*tokenizer, {e4, bd, a0, e4, letter}),
              ElementsAre("", "", "", "", "\uFFFD\uFFFD\uFFFD\uFFFDa", ""));
}

TEST(DetokenizerTest, AnUnknownIdChangesNothing) {
  const std::unique_ptr<Tokenizer> tokenizer = Load(ByteLevelTokenizer());
  const std::vector<uint32_t> ids = tokenizer->Encode("é", false).value();
  Detokenizer detokenizer(*tokenizer, true);
  EXPECT_EQ(detokenizer.Append(ids[0]).value(), "");
  EXPECT_EQ(detokenizer.Append(999).status(),
            absl::InvalidArgumentError("token id 999 is not in the vocabulary of 261 ids"));
  EXPECT_EQ(detokenizer.Append(ids[1]).value(), "é");
}

TEST(DetokenizerTest, FlushBeginsANewText) {
  const std::unique_ptr<Tokenizer> tokenizer = Load(LlamaStyleTokenizer());
  Detokenizer detokenizer(*tokenizer, true);
  for (int round = 0; round < 2; ++round) {
    EXPECT_EQ(detokenizer.Append(288).value(), "the");
    EXPECT_EQ(detokenizer.Append(3 + 0xFF).value(), "");
    EXPECT_EQ(detokenizer.Flush().value(), kReplacement);
    EXPECT_EQ(detokenizer.Flush().value(), "");
  }
}

TEST(DetokenizerTest, MovesAndOutlivesItsTokenizer) {
  std::unique_ptr<Tokenizer> tokenizer = Load(ByteLevelTokenizer());
  Detokenizer first(*tokenizer, true);
  tokenizer.reset();
  EXPECT_EQ(first.Append(256).value(), "he");
  Detokenizer second(std::move(first));
  EXPECT_EQ(second.Append(258).value(), " the");
  first = std::move(second);
  EXPECT_EQ(first.Append(256).value(), "he");
}

// The library's Strip panics where both its ends meet.
TEST(DetokenizerTest, APanicOfTheLibraryIsAStatus) {
  const std::unique_ptr<Tokenizer> tokenizer = Load(WithDecoder(
      LlamaStyleTokenizer(), R"({"type": "Strip", "content": "e", "start": 1, "stop": 1})"));
  Detokenizer detokenizer(*tokenizer, false);
  const uint32_t e = tokenizer->TokenToId("e").value();
  EXPECT_EQ(tokenizer->Decode({e}, false).status().code(), absl::StatusCode::kInternal);
  const absl::Status status = detokenizer.Append(e).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(status.message()), testing::StartsWith("panicked at strip.rs:"));
  EXPECT_EQ(detokenizer.Append(260).value(), "a");
}

// The two kinds of tokenizer of today's models, and the other decoders that the format knows.
struct Kind {
  const char* name;
  nlohmann::ordered_json json;
};

std::vector<Kind> Kinds() {
  const auto llama = [](const std::string& decoder) {
    return WithDecoder(LlamaStyleTokenizer(), decoder);
  };
  return {
      {"ByteLevel", ByteLevelTokenizer()},
      {"Llama", LlamaStyleTokenizer()},
      {"Gemma", llama(R"({"type": "Sequence", "decoders": [
          {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
          {"type": "ByteFallback"}, {"type": "Fuse"}]})")},
      {"StripsThree", llama(R"({"type": "Sequence", "decoders": [
          {"type": "Replace", "pattern": {"Regex": "▁|a"}, "content": " "},
          {"type": "ByteFallback"}, {"type": "Sequence", "decoders": [{"type": "Fuse"},
          {"type": "Strip", "content": " ", "start": 3, "stop": 0}]}]})")},
      {"StripsEachToken", llama(R"({"type": "Strip", "content": "e", "start": 1, "stop": 0})")},
      {"Metaspace", llama(R"({"type": "Sequence", "decoders": [{"type": "ByteFallback"},
          {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true}]})")},
      {"WordPiece", llama(R"({"type": "WordPiece", "prefix": "▁", "cleanup": true})")},
      {"BpeSuffix", llama(R"({"type": "BPEDecoder", "suffix": "he"})")},
      {"Ctc", llama(R"({"type": "CTC", "pad_token": "a", "word_delimiter_token": "▁",
          "cleanup": true})")},
      {"ReplacesInTheWhole", llama(R"({"type": "Sequence", "decoders": [{"type": "ByteFallback"},
          {"type": "Fuse"}, {"type": "Replace", "pattern": {"String": "aa"}, "content": "b"}]})")},
      {"None", llama("null")},
  };
}

// Often a run of bytes, which need not be characters; often what special cases are about.
std::vector<uint32_t> RandomIds(const Tokenizer& tokenizer) {
  const auto size = static_cast<uint32_t>(tokenizer.vocab_size());
  return *rc::gen::container<std::vector<uint32_t>>(
      rc::gen::weightedOneOf<uint32_t>({{4, rc::gen::inRange<uint32_t>(0, size)},
                                        {2, rc::gen::inRange<uint32_t>(3 + 0xC2, 3 + 0xE0)},
                                        {2, rc::gen::inRange<uint32_t>(3 + 0x80, 3 + 0xC0)},
                                        {4, rc::gen::inRange<uint32_t>(256, size)}}));
}

class DetokenizerPropertyTest : public testing::TestWithParam<Kind> {};

TEST_P(DetokenizerPropertyTest, ThePiecesMakeTheText) {
  const std::unique_ptr<Tokenizer> tokenizer = Load(GetParam().json);
  EXPECT_TRUE(rc::check([&] {
    const std::vector<uint32_t> ids = RandomIds(*tokenizer);
    const bool skip = *rc::gen::arbitrary<bool>();
    const std::vector<std::string> pieces = Pieces(*tokenizer, ids, skip);
    RC_ASSERT(absl::StrJoin(pieces, "") == tokenizer->Decode(ids, skip).value());
  }));
}

// Whatever comes after a prefix, what was given for the prefix stays the beginning of the text.
TEST_P(DetokenizerPropertyTest, WhatIsGivenIsFinal) {
  const std::unique_ptr<Tokenizer> tokenizer = Load(GetParam().json);
  EXPECT_TRUE(rc::check([&] {
    std::vector<uint32_t> ids = RandomIds(*tokenizer);
    Detokenizer detokenizer(*tokenizer, false);
    std::string given;
    for (const uint32_t id : ids) given += detokenizer.Append(id).value();
    const std::vector<uint32_t> rest = RandomIds(*tokenizer);
    ids.insert(ids.end(), rest.begin(), rest.end());
    RC_ASSERT(absl::StartsWith(tokenizer->Decode(ids, false).value(), given));
  }));
}

INSTANTIATE_TEST_SUITE_P(All,
                         DetokenizerPropertyTest,
                         testing::ValuesIn(Kinds()),
                         [](const auto& info) { return info.param.name; });

// Chains that no model has yet are decoded as the library does too, streaming or not.
TEST(DetokenizerTest, AnyChainOfDecoders) {
  const std::vector<std::string> decoders = {
      R"({"type": "Replace", "pattern": {"String": "▁"}, "content": " "})",
      R"({"type": "Replace", "pattern": {"Regex": "[a-e]+"}, "content": "<0xE4>"})",
      R"({"type": "Replace", "pattern": {"String": "aa"}, "content": ""})",
      R"({"type": "ByteFallback"})",
      R"({"type": "Fuse"})",
      R"({"type": "Strip", "content": " ", "start": 2, "stop": 0})",
      R"({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false,
          "use_regex": true})",
      R"({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true})",
      R"({"type": "WordPiece", "prefix": "▁", "cleanup": true})",
      R"({"type": "BPEDecoder", "suffix": "h"})",
      R"({"type": "CTC", "pad_token": "a", "word_delimiter_token": "▁", "cleanup": true})"};
  EXPECT_TRUE(rc::check([&] {
    const auto chain = *rc::gen::container<std::vector<std::string>>(rc::gen::elementOf(decoders));
    const std::unique_ptr<Tokenizer> tokenizer = Load(WithDecoder(
        LlamaStyleTokenizer(),
        absl::StrCat(
            R"({"type": "Sequence", "decoders": [)",
            absl::StrJoin(
                chain.begin(), chain.begin() + static_cast<ptrdiff_t>(chain.size() % 5), ","),
            "]}")));
    for (int round = 0; round < 10; ++round) {
      const std::vector<uint32_t> ids = RandomIds(*tokenizer);
      RC_ASSERT(absl::StrJoin(Pieces(*tokenizer, ids), "") ==
                tokenizer->Decode(ids, false).value());
    }
  }));
}

// A byte-level stream is never behind by more than one incomplete character.
TEST(DetokenizerTest, ByteLevelIsPrompt) {
  const std::unique_ptr<Tokenizer> tokenizer = Load(ByteLevelTokenizer());
  EXPECT_TRUE(rc::check([&] {
    const auto ids = *rc::gen::container<std::vector<uint32_t>>(rc::gen::inRange<uint32_t>(0, 261));
    Detokenizer detokenizer(*tokenizer, false);
    std::string given;
    for (size_t i = 0; i < ids.size(); ++i) {
      given += detokenizer.Append(ids[i]).value();
      const std::string text = tokenizer->Decode({ids.data(), i + 1}, false).value();
      RC_ASSERT(text == given || text == absl::StrCat(given, kReplacement));
    }
  }));
}

}  // namespace
}  // namespace pregate
