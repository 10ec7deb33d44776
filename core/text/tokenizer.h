// Text to token ids and back, as a model's tokenizer.json says.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

struct PregateTokenizer;

namespace pregate {

// Hugging Face's `tokenizers` over one tokenizer.json: the ids and texts are those of the Python
// library. Truncation and padding that the file may ask for are left out. Immutable: thread-safe.
class Tokenizer {
 public:
  // Reads `model_folder`/tokenizer.json, of at most 64 MiB: RESOURCE_EXHAUSTED when it has more.
  // INVALID_ARGUMENT says where the file is wrong (line and column where it can); an unreadable
  // file has the system's code and reason.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Load(const std::string& model_folder);
  ~Tokenizer();
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  // `add_special_tokens`: those that the file's post-processor puts around a text, such as <s>.
  // Special tokens spelled out in the text become their ids either way. Takes up to 1 µs a byte on
  // the calling thread. INVALID_ARGUMENT: not UTF-8; names the first wrong byte.
  absl::StatusOr<std::vector<uint32_t>> Encode(absl::string_view text,
                                               bool add_special_tokens) const;

  // Bytes that are not UTF-8 become U+FFFD. INVALID_ARGUMENT: names an id that has no token.
  absl::StatusOr<std::string> Decode(absl::Span<const uint32_t> ids,
                                     bool skip_special_tokens) const;

  // One past the highest id. A model's logits may be padded beyond it: such an id decodes to
  // nothing but an error, and is not one to sample.
  size_t vocab_size() const;

  // Whether `skip_special_tokens` leaves `id` out.
  bool IsSpecial(uint32_t id) const;

  // The id of a token as the vocabulary spells it ("<|im_end|>", "Ġthe").
  std::optional<uint32_t> TokenToId(absl::string_view token) const;

 private:
  friend class Detokenizer;
  explicit Tokenizer(PregateTokenizer* handle) : handle_(handle) {}

  PregateTokenizer* const handle_;
};

}  // namespace pregate
