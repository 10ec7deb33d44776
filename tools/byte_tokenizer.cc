#include "tools/byte_tokenizer.h"

#include <map>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace pregate {
namespace {

// The character that stands for a byte in a byte-level vocabulary: printable bytes of Latin-1 for
// themselves, the others from U+0100 on (Radford et al., GPT-2, bytes_to_unicode).
std::vector<std::string> ByteCharacters() {
  std::vector<std::string> characters;
  uint32_t next = 0x100;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    const bool printable =
        (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    const uint32_t code = printable ? byte : next++;
    std::string utf8;
    if (code < 0x80) {
      utf8.push_back(static_cast<char>(code));
    } else {
      utf8.push_back(static_cast<char>(0xc0 | code >> 6));
      utf8.push_back(static_cast<char>(0x80 | (code & 0x3f)));
    }
    characters.push_back(std::move(utf8));
  }
  return characters;
}

nlohmann::json ByteLevel() {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", false},
          {"trim_offsets", true},
          {"use_regex", false}};
}

}  // namespace

absl::StatusOr<TokenizerFiles> MakeByteTokenizer(int64_t vocab_size,
                                                 const std::vector<int64_t>& special_ids,
                                                 int64_t max_context) {
  std::map<int64_t, std::string> special;
  for (const int64_t id : special_ids) {
    special.emplace(id, special.empty() ? "<|endoftext|>" : absl::StrCat("<|special_", id, "|>"));
  }
  const std::vector<std::string> bytes = ByteCharacters();
  const auto needed = static_cast<int64_t>(bytes.size() + special.size());
  if (vocab_size < needed) {
    return absl::InvalidArgumentError(absl::StrCat("vocab_size ",
                                                   vocab_size,
                                                   " is less than the ",
                                                   needed,
                                                   " that bytes and special tokens need"));
  }

  nlohmann::json vocab = nlohmann::json::object();
  nlohmann::json added = nlohmann::json::array();
  size_t next_byte = 0;
  for (int64_t id = 0; id < vocab_size; ++id) {
    std::string token;
    if (const auto found = special.find(id); found != special.end()) {
      token = found->second;
      added.push_back({{"id", id},
                       {"content", token},
                       {"single_word", false},
                       {"lstrip", false},
                       {"rstrip", false},
                       {"normalized", false},
                       {"special", true}});
    } else {
      token = next_byte < bytes.size() ? bytes[next_byte++] : absl::StrCat("<unused_", id, ">");
    }
    vocab[token] = id;
  }

  const nlohmann::json model = {{"type", "BPE"},
                                {"dropout", nullptr},
                                {"unk_token", nullptr},
                                {"continuing_subword_prefix", nullptr},
                                {"end_of_word_suffix", nullptr},
                                {"fuse_unk", false},
                                {"byte_fallback", false},
                                {"ignore_merges", false},
                                {"vocab", std::move(vocab)},
                                {"merges", nlohmann::json::array()}};
  const nlohmann::json tokenizer = {{"version", "1.0"},
                                    {"truncation", nullptr},
                                    {"padding", nullptr},
                                    {"added_tokens", std::move(added)},
                                    {"normalizer", nullptr},
                                    {"pre_tokenizer", ByteLevel()},
                                    {"post_processor", nullptr},
                                    {"decoder", ByteLevel()},
                                    {"model", model}};
  nlohmann::json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                           {"model_max_length", max_context},
                           {"clean_up_tokenization_spaces", false}};
  if (!special_ids.empty()) config["eos_token"] = special.at(special_ids.front());
  return TokenizerFiles{.tokenizer = tokenizer.dump() + "\n",
                        .tokenizer_config = config.dump(2) + "\n"};
}

}  // namespace pregate
