#include "core/text/tokenizer.h"

#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/temp_folder.h"
#include "tests/unit/text/tokenizer_files.h"

namespace pregate {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// What loading a tokenizer.json with these bytes gives.
absl::Status LoadStatus(const std::string& json) {
  const TempFolder folder;
  folder.Write("tokenizer.json", json);
  return Tokenizer::Load(folder.path()).status();
}

TEST(TokenizerTest, SentencePieceStyle) {
  const std::unique_ptr<Tokenizer> tokenizer = Load(LlamaStyleTokenizer());
  EXPECT_THAT(tokenizer->Encode("the cat", false).value(), ElementsAre(288, 259, 262, 260, 279));
  EXPECT_THAT(tokenizer->Encode("the", true).value(), ElementsAre(1, 288));
  EXPECT_EQ(tokenizer->Decode({1, 288, 259, 262, 260, 279, 2}, true).value(), "the cat");
  EXPECT_EQ(tokenizer->Decode({1, 288}, false).value(), "<s> the");
  // Characters that the vocabulary lacks are spelled in bytes.
  EXPECT_THAT(tokenizer->Encode("é", false).value(), ElementsAre(259, 3 + 0xC3, 3 + 0xA9));
  EXPECT_EQ(tokenizer->Decode({259, 3 + 0xC3, 3 + 0xA9}, false).value(), "é");
}

TEST(TokenizerTest, ByteLevel) {
  const std::unique_ptr<Tokenizer> tokenizer = Load(ByteLevelTokenizer());
  EXPECT_THAT(tokenizer->Encode("he the", false).value(), ElementsAre(256, 258));
  EXPECT_THAT(tokenizer->Encode("!<|end|>日本", false).value(), ElementsAre(0, 259, 260));
  EXPECT_EQ(tokenizer->Decode({256, 258, 259, 260}, false).value(), "he the<|end|>日本");
  EXPECT_EQ(tokenizer->Decode({256, 258, 259, 260}, true).value(), "he the日本");
  EXPECT_EQ(tokenizer->Decode({}, false).value(), "");
}

TEST(TokenizerTest, KnowsItsTokens) {
  const std::unique_ptr<Tokenizer> tokenizer = Load(ByteLevelTokenizer());
  EXPECT_EQ(tokenizer->vocab_size(), 261);
  EXPECT_EQ(tokenizer->TokenToId("<|end|>"), 259);
  EXPECT_EQ(tokenizer->TokenToId("Ġthe"), 258);
  EXPECT_EQ(tokenizer->TokenToId(" the"), std::nullopt);
  EXPECT_EQ(tokenizer->TokenToId("\xff"), std::nullopt);
  EXPECT_TRUE(tokenizer->IsSpecial(259));
  EXPECT_FALSE(tokenizer->IsSpecial(260));
  EXPECT_FALSE(tokenizer->IsSpecial(261));
}

TEST(TokenizerTest, NamesAnIdWithoutToken) {
  nlohmann::ordered_json json = LlamaStyleTokenizer();
  json["model"]["vocab"]["z"] = 300;
  const std::unique_ptr<Tokenizer> tokenizer = Load(json);
  EXPECT_EQ(tokenizer->vocab_size(), 301);
  EXPECT_EQ(tokenizer->Decode({260, 285, 261}, true).status(),
            absl::InvalidArgumentError("token id 285 is not in the vocabulary of 301 ids"));
  EXPECT_EQ(tokenizer->Decode({4294967295}, true).status(),
            absl::InvalidArgumentError("token id 4294967295 is not in the vocabulary of 301 ids"));
}

TEST(TokenizerTest, NamesTheByteThatIsNotUtf8) {
  const std::unique_ptr<Tokenizer> tokenizer = Load(ByteLevelTokenizer());
  EXPECT_EQ(tokenizer->Encode("abc\xE4\xBDz", false).status(),
            absl::InvalidArgumentError("text is not UTF-8 at byte 3"));
  EXPECT_THAT(tokenizer->Encode(std::string(1, '\0'), false).value(), testing::SizeIs(1));
}

TEST(TokenizerTest, NeitherCutsNorPads) {
  nlohmann::ordered_json json = ByteLevelTokenizer();
  json["truncation"] = nlohmann::ordered_json::parse(
      R"({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0})");
  json["padding"] = nlohmann::ordered_json::parse(
      R"({"strategy": {"Fixed": 1000000000000}, "direction": "Right", "pad_to_multiple_of": null,
          "pad_id": 0, "pad_type_id": 0, "pad_token": "!"})");
  EXPECT_THAT(Load(json)->Encode("abc", true).value(), testing::SizeIs(3));
}

TEST(TokenizerTest, AnyNumberOfThreadsMayUseOne) {
  const std::unique_ptr<Tokenizer> tokenizer = Load(ByteLevelTokenizer());
  const std::string text = "he the then. there! <|end|> 日本 é ";
  const std::vector<uint32_t> expected = tokenizer->Encode(text, false).value();
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < 100; ++round) {
        EXPECT_EQ(tokenizer->Encode(text, false).value(), expected);
        EXPECT_EQ(tokenizer->Decode(expected, false).value(), text);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(TokenizerTest, AMissingFileIsNamed) {
  const TempFolder folder;
  const absl::Status status = Tokenizer::Load(folder.path()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr(folder / "tokenizer.json"));
}

TEST(TokenizerTest, APostProcessorThatAddsAnIdWithoutATokenIsInvalid) {
  nlohmann::ordered_json json = ByteLevelTokenizer();
  json["post_processor"] = nlohmann::ordered_json::parse(
      R"({"type": "BertProcessing", "sep": ["he", 256], "cls": ["<|end|>", 261]})");
  const absl::Status status = LoadStatus(json.dump());
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("post_processor: token id 261 is not in the vocabulary of 261 ids"));
}

TEST(TokenizerTest, AnAbsurdlyLargeFileIsRefused) {
  const TempFolder folder;
  const std::string path = folder.Write("tokenizer.json", "{}");
  std::filesystem::resize_file(path, size_t{1} << 40);  // a hole: nothing is written
  EXPECT_EQ(
      Tokenizer::Load(folder.path()).status(),
      absl::ResourceExhaustedError(path + ": larger than the 67108864 bytes that it may have"));
}

TEST(TokenizerTest, AFileCutAnywhereIsAStatusThatSaysWhere) {
  nlohmann::ordered_json json = LlamaStyleTokenizer();
  json["model"]["vocab"] = {{"<unk>", 0}, {"<s>", 1}, {"</s>", 2}, {"▁", 3}, {"t", 4}, {"▁t", 5}};
  json["model"]["merges"] = nlohmann::ordered_json::parse(R"([["▁", "t"]])");
  const std::string whole = json.dump(1);
  ASSERT_TRUE(LoadStatus(whole).ok()) << LoadStatus(whole);
  for (size_t size = 0; size < whole.size(); size += 3) {
    const absl::Status status = LoadStatus(whole.substr(0, size));
    ASSERT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << size;
    ASSERT_THAT(std::string(status.message()),
                testing::AllOf(HasSubstr("/tokenizer.json: "), HasSubstr(" at line ")));
  }
}

TEST(TokenizerTest, WrongContentIsAStatusThatSaysWhat) {
  const auto error_of = [](auto change) {
    nlohmann::ordered_json json = LlamaStyleTokenizer();
    change(json);
    const absl::Status status = LoadStatus(json.dump());
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  EXPECT_THAT(error_of([](auto& json) {
                json["model"]["merges"].push_back({"t", "missing"});
              }),
              HasSubstr("Token `missing` out of vocabulary"));
  EXPECT_THAT(error_of([](auto& json) { json["model"]["vocab"]["a"] = "one"; }),
              HasSubstr("invalid type: string \"one\", expected u32"));
  EXPECT_THAT(error_of([](auto& json) { json["model"]["vocab"]["a"] = -1; }), HasSubstr("-1"));
  EXPECT_THAT(error_of([](auto& json) { json["added_tokens"] = 7; }),
              HasSubstr("invalid type: integer `7`, expected a sequence at line 1 column"));
  EXPECT_THAT(error_of([](auto& json) {
                json["decoder"] = {{"type", "Rot13"}};
              }),
              HasSubstr("DecoderUntagged at line 1 column"));
  EXPECT_THAT(error_of([](auto& json) { json["decoder"]["decoders"][0]["pattern"] = "["; }),
              HasSubstr("at line 1 column"));
  EXPECT_THAT(error_of([](auto& json) {
                json["normalizer"]["normalizers"][1]["pattern"] = {{"Regex", "("}};
              }),
              HasSubstr("at line 1 column"));
  EXPECT_THAT(error_of([](auto& json) { json.erase("model"); }), HasSubstr("odel"));
  EXPECT_EQ(LoadStatus("[]").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(LoadStatus("{}\n garbage").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(LoadStatus("{\"version\": \"\xff\"}").code(), absl::StatusCode::kInvalidArgument);
}

TEST(TokenizerTest, DeepNestingIsAStatus) {
  constexpr int kDepth = 100000;
  std::string decoder;
  std::string lists;
  for (int i = 0; i < kDepth; ++i) {
    decoder += R"({"type":"Sequence","decoders":[)";
    lists += '[';
  }
  for (const std::string& nested : {decoder, lists}) {
    for (const std::string field : {"decoder", "normalizer", "model", "version", "unknown"}) {
      const absl::Status status = LoadStatus("{\"" + field + "\": " + nested);
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << field;
    }
  }
}

}  // namespace
}  // namespace pregate
