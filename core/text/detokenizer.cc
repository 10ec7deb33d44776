#include "core/text/detokenizer.h"

#include <utility>

#include "core/base/status_macros.h"
#include "core/text/boundary.h"

namespace pregate {

using text_internal::Into;
using text_internal::StatusOf;

Detokenizer::Detokenizer(const Tokenizer& tokenizer, bool skip_special_tokens)
    : handle_(pregate_detokenizer_new(tokenizer.handle_, skip_special_tokens)) {}

Detokenizer::Detokenizer(Detokenizer&& other) noexcept
    : handle_(std::exchange(other.handle_, nullptr)) {}

Detokenizer& Detokenizer::operator=(Detokenizer&& other) noexcept {
  std::swap(handle_, other.handle_);
  return *this;
}

Detokenizer::~Detokenizer() {
  if (handle_ != nullptr) pregate_detokenizer_free(handle_);
}

absl::StatusOr<std::string> Detokenizer::Append(uint32_t id) {
  std::string text;
  PREGATE_RETURN_IF_ERROR(StatusOf([&](PregateSink error) {
    return pregate_detokenizer_append(handle_, id, Into(text), error);
  }));
  return text;
}

absl::StatusOr<std::string> Detokenizer::Flush() {
  std::string text;
  PREGATE_RETURN_IF_ERROR(StatusOf(
      [&](PregateSink error) { return pregate_detokenizer_flush(handle_, Into(text), error); }));
  return text;
}

}  // namespace pregate
