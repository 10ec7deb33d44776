// Small tokenizer.json files of the two kinds that models come with, for the tests of this folder.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/text/tokenizer.h"
#include "nlohmann/json.hpp"

namespace pregate {

// SentencePiece-style, as Llama, Mistral and Gemma: 0 <unk>, 1 <s>, 2 </s>, 3 … 258 the bytes
// <0x00> … <0xFF>, then "▁", the letters a-z, "▁t", "he" and "▁the" (286 … 288). The decoder puts
// spaces for "▁", joins bytes and strips one leading space.
nlohmann::ordered_json LlamaStyleTokenizer();

// Byte-level, as GPT-2 and Qwen: 0 … 255 the bytes in GPT-2's order ('!' is 0), "he" 256, "Ġt" 257,
// "Ġthe" 258, the special token <|end|> 259 and the added, not special one "日本" 260.
nlohmann::ordered_json ByteLevelTokenizer();

// `json` with another decoder; null for none.
nlohmann::ordered_json WithDecoder(nlohmann::ordered_json json, const std::string& decoder);

// Tokenizer::Load of a folder that holds `json`; fails the test when it fails.
std::unique_ptr<Tokenizer> Load(const nlohmann::ordered_json& json);

// GPT-2's printable characters of all bytes, in the order of the vocabulary above.
std::vector<std::string> ByteLevelAlphabet();

}  // namespace pregate
