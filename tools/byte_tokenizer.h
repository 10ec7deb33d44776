// A tokenizer of single bytes in Hugging Face's files, for models with random weights.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace pregate {

struct TokenizerFiles {
  std::string tokenizer;         // tokenizer.json
  std::string tokenizer_config;  // tokenizer_config.json
};

// A byte-level BPE without merges: the special tokens at their ids, a token for each of the 256
// bytes at the lowest ids left, and at all others tokens that no text encodes to and that decode to
// their own name. The first of `special_ids` is "<|endoftext|>". INVALID_ARGUMENT when `vocab_size`
// has no room for the bytes.
absl::StatusOr<TokenizerFiles> MakeByteTokenizer(int64_t vocab_size,
                                                 const std::vector<int64_t>& special_ids,
                                                 int64_t max_context);

}  // namespace pregate
