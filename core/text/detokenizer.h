// The text of tokens that arrive one by one.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "core/text/tokenizer.h"

struct PregateDetokenizer;

namespace pregate {

// One per stream. The pieces that Append and Flush give, put together, are Tokenizer::Decode of all
// ids. Each piece is whole characters, and is given as soon as no later token can change it:
// byte-level tokenizers keep back an incomplete character at most, SentencePiece-style ones a run
// of byte tokens (one bad byte turns the whole run into U+FFFD). A token costs time in proportion
// to its length, however long the text is already.
//
// To continue a text that begins with other tokens (a prompt), append those first and drop what
// they give: some tokenizers take a space off the beginning of a text.
//
// Movable; a moved-from one can only be destroyed or assigned to. Not thread-safe. May outlive its
// Tokenizer.
class Detokenizer {
 public:
  Detokenizer(const Tokenizer& tokenizer, bool skip_special_tokens);
  Detokenizer(Detokenizer&& other) noexcept;
  Detokenizer& operator=(Detokenizer&& other) noexcept;
  ~Detokenizer();

  // The text that `id` makes final, often none. INVALID_ARGUMENT: `id` has no token; the stream
  // goes on as if it had not been there.
  absl::StatusOr<std::string> Append(uint32_t id);

  // The rest; an incomplete character becomes U+FFFD. What is appended next begins a new text.
  absl::StatusOr<std::string> Flush();

 private:
  PregateDetokenizer* handle_;
};

}  // namespace pregate
