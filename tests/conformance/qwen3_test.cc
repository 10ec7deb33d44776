// Qwen3's tokenizer and chat template against what the Python libraries gave (qwen3/README.md).
#include <zstd.h>

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "core/text/chat_template.h"
#include "core/text/detokenizer.h"
#include "core/text/tokenizer.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/support/temp_folder.h"

namespace pregate {
namespace {

std::string ReadQwen3(const std::string& name) {
  return ReadFile(PREGATE_SOURCE_DIR "/tests/conformance/qwen3/" + name);
}

std::string Decompress(const std::string& compressed) {
  std::string bytes(ZSTD_getFrameContentSize(compressed.data(), compressed.size()), '\0');
  const size_t size =
      ZSTD_decompress(bytes.data(), bytes.size(), compressed.data(), compressed.size());
  EXPECT_EQ(size, bytes.size());
  return bytes;
}

// Loads the folder once: reading 11 MB of JSON is most of these tests' time.
class Qwen3Test : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    const TempFolder folder;
    folder.Write("tokenizer.json", Decompress(ReadQwen3("tokenizer.json.zst")));
    folder.Write("tokenizer_config.json", ReadQwen3("tokenizer_config.json"));
    absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Load(folder.path());
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    tokenizer_ = *std::move(tokenizer);
    absl::StatusOr<std::unique_ptr<ChatTemplate>> chat_template = ChatTemplate::Load(folder.path());
    ASSERT_TRUE(chat_template.ok()) << chat_template.status();
    chat_template_ = *std::move(chat_template);
    cases_ = std::make_unique<nlohmann::ordered_json>(
        nlohmann::ordered_json::parse(ReadQwen3("cases.json")));
  }

  static void TearDownTestSuite() {
    tokenizer_.reset();
    chat_template_.reset();
    cases_.reset();
  }

  static std::string DecodeByPieces(const std::vector<uint32_t>& ids) {
    Detokenizer detokenizer(*tokenizer_, /*skip_special_tokens=*/false);
    std::string text;
    for (const uint32_t id : ids) text += detokenizer.Append(id).value();
    return text + detokenizer.Flush().value();
  }

  static inline std::unique_ptr<Tokenizer> tokenizer_;
  static inline std::unique_ptr<ChatTemplate> chat_template_;
  static inline std::unique_ptr<nlohmann::ordered_json> cases_;
};

TEST_F(Qwen3Test, TextsBecomeTheIdsOfThePythonLibraryAndBack) {
  ASSERT_EQ((*cases_)["tokenize"].size(), 21);
  for (const auto& entry : (*cases_)["tokenize"]) {
    const auto text = entry["text"].get<std::string>();
    const auto ids = entry["ids"].get<std::vector<uint32_t>>();
    EXPECT_EQ(tokenizer_->Encode(text, false).value(), ids) << text;
    EXPECT_EQ(tokenizer_->Encode(text, true).value(),
              entry["ids_with_special"].get<std::vector<uint32_t>>())
        << text;
    EXPECT_EQ(tokenizer_->Decode(ids, false).value(), entry["decoded"].get<std::string>());
    EXPECT_EQ(DecodeByPieces(ids), entry["decoded"].get<std::string>());
  }
}

TEST_F(Qwen3Test, ConversationsRenderAsInJinja2) {
  ASSERT_EQ((*cases_)["chat"].size(), 16);
  for (const auto& entry : (*cases_)["chat"]) {
    std::vector<ChatMessage> messages;
    for (const auto& message : entry["messages"]) {
      ASSERT_EQ(message.size(), 2) << "ChatMessage has no more than a role and a content";
      messages.push_back({.role = message["role"], .content = message["content"]});
    }
    const std::string tools = entry["tools"].is_null() ? "" : entry["tools"].dump();
    EXPECT_EQ(chat_template_->Render(messages, tools, entry["add_generation_prompt"]).value(),
              entry["text"].get<std::string>());
  }
}

TEST_F(Qwen3Test, KnowsItsVocabulary) {
  EXPECT_EQ(tokenizer_->vocab_size(), 151669);
  EXPECT_EQ(tokenizer_->TokenToId("<|im_end|>"), 151645);
  EXPECT_TRUE(tokenizer_->IsSpecial(151645));
  EXPECT_FALSE(tokenizer_->IsSpecial(*tokenizer_->TokenToId("<think>")));
  const auto beyond = tokenizer_->Decode({151669}, false);
  EXPECT_EQ(beyond.status(),
            absl::InvalidArgumentError("token id 151669 is not in the vocabulary of 151669 ids"));
}

TEST_F(Qwen3Test, PiecesOfRandomTokensMakeTheirText) {
  std::mt19937 random(1);
  for (int round = 0; round < 200; ++round) {
    std::vector<uint32_t> ids(random() % 50);
    // Ids below 256 are single bytes, most of which are no characters.
    for (uint32_t& id : ids) id = random() % 2 == 0 ? random() % 256 : random() % 151669;
    EXPECT_EQ(DecodeByPieces(ids), tokenizer_->Decode(ids, false).value());
  }
}

}  // namespace
}  // namespace pregate
