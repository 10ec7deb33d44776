#include "tests/unit/text/tokenizer_files.h"

#include <utility>

#include "absl/strings/str_format.h"
#include "gtest/gtest.h"
#include "tests/support/temp_folder.h"

namespace pregate {
namespace {

using Json = nlohmann::ordered_json;

Json AddedToken(uint32_t id, const std::string& content, bool special) {
  return {{"id", id},
          {"content", content},
          {"single_word", false},
          {"lstrip", false},
          {"rstrip", false},
          {"normalized", false},
          {"special", special}};
}

std::string Utf8(uint32_t two_byte_character) {
  return {static_cast<char>(0xC0 | two_byte_character >> 6),
          static_cast<char>(0x80 | (two_byte_character & 0x3F))};
}

}  // namespace

Json LlamaStyleTokenizer() {
  std::vector<std::string> tokens = {"<unk>", "<s>", "</s>"};
  for (int byte = 0; byte < 256; ++byte) tokens.push_back(absl::StrFormat("<0x%02X>", byte));
  tokens.push_back("▁");
  for (char letter = 'a'; letter <= 'z'; ++letter) tokens.emplace_back(1, letter);
  tokens.insert(tokens.end(), {"▁t", "he", "▁the"});
  Json vocab;
  for (size_t id = 0; id < tokens.size(); ++id) vocab[tokens[id]] = id;
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens",
           {AddedToken(0, "<unk>", true), AddedToken(1, "<s>", true), AddedToken(2, "</s>", true)}},
          {"normalizer", Json::parse(R"({"type": "Sequence", "normalizers": [
           {"type": "Prepend", "prepend": "▁"},
           {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]})")},
          {"pre_tokenizer", nullptr},
          {"post_processor", Json::parse(R"({"type": "TemplateProcessing",
           "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                      {"Sequence": {"id": "A", "type_id": 0}}],
           "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
           "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}})")},
          {"decoder", Json::parse(R"({"type": "Sequence", "decoders": [
           {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
           {"type": "ByteFallback"},
           {"type": "Fuse"},
           {"type": "Strip", "content": " ", "start": 1, "stop": 0}]})")},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", "<unk>"},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", true},
            {"byte_fallback", true},
            {"ignore_merges", false},
            {"vocab", vocab},
            {"merges", Json::parse(R"([["▁", "t"], ["h", "e"], ["▁t", "he"]])")}}}};
}

std::vector<std::string> ByteLevelAlphabet() {
  std::vector<std::string> alphabet;
  for (uint32_t byte = '!'; byte <= '~'; ++byte) alphabet.emplace_back(1, static_cast<char>(byte));
  for (uint32_t byte = 0xA1; byte <= 0xFF; ++byte) {
    if (byte != 0xAD) alphabet.push_back(Utf8(byte));
  }
  for (uint32_t character = 0x100; alphabet.size() < 256; ++character) {
    alphabet.push_back(Utf8(character));
  }
  return alphabet;
}

Json ByteLevelTokenizer() {
  std::vector<std::string> tokens = ByteLevelAlphabet();
  tokens.insert(tokens.end(), {"he", "Ġt", "Ġthe"});
  Json vocab;
  for (size_t id = 0; id < tokens.size(); ++id) vocab[tokens[id]] = id;
  const Json byte_level = {{"type", "ByteLevel"},
                           {"add_prefix_space", false},
                           {"trim_offsets", false},
                           {"use_regex", true}};
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", {AddedToken(259, "<|end|>", true), AddedToken(260, "日本", false)}},
          {"normalizer", nullptr},
          {"pre_tokenizer", byte_level},
          {"post_processor", byte_level},
          {"decoder", byte_level},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", ""},
            {"end_of_word_suffix", ""},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"ignore_merges", false},
            {"vocab", vocab},
            {"merges", Json::parse(R"([["h", "e"], ["Ġ", "t"], ["Ġt", "he"]])")}}}};
}

Json WithDecoder(Json json, const std::string& decoder) {
  json["decoder"] = Json::parse(decoder);
  return json;
}

std::unique_ptr<Tokenizer> Load(const Json& json) {
  const TempFolder folder;
  folder.Write("tokenizer.json", json.dump());
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Load(folder.path());
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

}  // namespace pregate
