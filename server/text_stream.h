// From tokens to text that is certain, up to a stop string.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "core/text/detokenizer.h"
#include "core/text/tokenizer.h"

namespace pregate {

// Detokenizes an answer token by token and looks for stop strings in its text. What could still
// become the beginning of a stop string is kept back; of what matches, and behind it, nothing is
// given. Not thread-safe.
class TextStream {
 public:
  // `prompt` precedes the answer: some tokenizers write a text's first token differently. Special
  // tokens of the answer are not shown.
  TextStream(const Tokenizer& tokenizer,
             absl::Span<const uint32_t> prompt,
             std::vector<std::string> stop);

  // Takes the next token, or the answer's end. Nothing more is taken once a stop string was found.
  absl::Status Append(uint32_t token_id);
  absl::Status Finish();

  // The text that has become certain since the last call.
  std::string Take();

  // The stop string that was found. When several end with the same token, the one that begins
  // first.
  const std::optional<std::string>& matched() const { return matched_; }

 private:
  void Add(const std::string& text);

  Detokenizer detokenizer_;
  const std::vector<std::string> stop_;
  std::string undecided_;  // may begin a stop string
  std::string certain_;
  std::optional<std::string> matched_;
};

}  // namespace pregate
