#include "server/text_stream.h"

#include <algorithm>
#include <utility>

#include "absl/strings/string_view.h"
#include "core/base/status_macros.h"

namespace pregate {
namespace {

// How many of the last bytes of `text` are the beginning of `stop`, which `text` does not hold.
size_t BegunBytes(absl::string_view text, absl::string_view stop) {
  for (size_t size = std::min(text.size(), stop.size() - 1); size > 0; --size) {
    if (text.substr(text.size() - size) == stop.substr(0, size)) return size;
  }
  return 0;
}

}  // namespace

TextStream::TextStream(const Tokenizer& tokenizer,
                       absl::Span<const uint32_t> prompt,
                       std::vector<std::string> stop)
    : detokenizer_(tokenizer, /*skip_special_tokens=*/true), stop_(std::move(stop)) {
  // What the prompt's tokens give is the client's own text; an id without a token adds none.
  for (const uint32_t token_id : prompt) detokenizer_.Append(token_id).IgnoreError();
}

absl::Status TextStream::Append(uint32_t token_id) {
  PREGATE_ASSIGN_OR_RETURN(const std::string text, detokenizer_.Append(token_id));
  Add(text);
  return absl::OkStatus();
}

absl::Status TextStream::Finish() {
  if (matched_.has_value()) return absl::OkStatus();
  PREGATE_ASSIGN_OR_RETURN(const std::string text, detokenizer_.Flush());
  Add(text);
  certain_ += std::exchange(undecided_, {});
  return absl::OkStatus();
}

std::string TextStream::Take() { return std::exchange(certain_, {}); }

void TextStream::Add(const std::string& text) {
  undecided_ += text;
  size_t begin = std::string::npos;
  size_t begun = 0;
  for (const std::string& stop : stop_) {
    if (const size_t found = undecided_.find(stop); found < begin) {
      begin = found;
      matched_ = stop;
    }
    begun = std::max(begun, BegunBytes(undecided_, stop));
  }
  const size_t certain = matched_.has_value() ? begin : undecided_.size() - begun;
  certain_ += undecided_.substr(0, certain);
  undecided_.erase(0, matched_.has_value() ? std::string::npos : certain);
}

}  // namespace pregate
