#include "core/text/tokenizer.h"

#include "absl/memory/memory.h"
#include "core/base/read_file.h"
#include "core/base/status_macros.h"
#include "core/text/boundary.h"

namespace pregate {

using text_internal::At;
using text_internal::Borrow;
using text_internal::Into;
using text_internal::StatusOf;

namespace {

// Of a tokenizer.json: twice what the largest in use have.
constexpr size_t kMaxBytes = size_t{64} << 20;

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Load(const std::string& model_folder) {
  const std::string path = model_folder + "/tokenizer.json";
  PREGATE_ASSIGN_OR_RETURN(const std::string json, ReadFile(path, kMaxBytes));
  PregateTokenizer* handle = nullptr;
  const absl::Status status = StatusOf(
      [&](PregateSink error) { return pregate_tokenizer_new(Borrow(json), &handle, error); });
  if (!status.ok()) return At(path, status);
  return absl::WrapUnique(new Tokenizer(handle));
}

Tokenizer::~Tokenizer() { pregate_tokenizer_free(handle_); }

absl::StatusOr<std::vector<uint32_t>> Tokenizer::Encode(absl::string_view text,
                                                        bool add_special_tokens) const {
  std::vector<uint32_t> ids;
  PREGATE_RETURN_IF_ERROR(StatusOf([&](PregateSink error) {
    return pregate_tokenizer_encode(handle_, Borrow(text), add_special_tokens, Into(ids), error);
  }));
  return ids;
}

absl::StatusOr<std::string> Tokenizer::Decode(absl::Span<const uint32_t> ids,
                                              bool skip_special_tokens) const {
  std::string text;
  PREGATE_RETURN_IF_ERROR(StatusOf([&](PregateSink error) {
    return pregate_tokenizer_decode(
        handle_, ids.data(), ids.size(), skip_special_tokens, Into(text), error);
  }));
  return text;
}

size_t Tokenizer::vocab_size() const { return pregate_tokenizer_vocab_size(handle_); }

bool Tokenizer::IsSpecial(uint32_t id) const { return pregate_tokenizer_is_special(handle_, id); }

std::optional<uint32_t> Tokenizer::TokenToId(absl::string_view token) const {
  uint32_t id = 0;
  if (!pregate_tokenizer_token_to_id(handle_, Borrow(token), &id)) return std::nullopt;
  return id;
}

}  // namespace pregate
