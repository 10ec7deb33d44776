#include "bench/prompts.h"

#include <memory>
#include <random>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/text/tokenizer.h"

namespace pregate {

absl::StatusOr<std::vector<std::vector<uint32_t>>> MakePrompts(const std::string& model,
                                                               absl::string_view text,
                                                               uint32_t count,
                                                               size_t length,
                                                               uint32_t vocab_size) {
  std::vector<std::vector<uint32_t>> prompts(count);
  if (text.empty()) {
    std::mt19937 random(count);
    for (std::vector<uint32_t>& prompt : prompts) {
      for (size_t i = 0; i < length; ++i) prompt.push_back(random() % vocab_size);
    }
    return prompts;
  }
  PREGATE_ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer, Tokenizer::Load(model));
  // More than enough: a token has at most a few bytes on average.
  const size_t needed = length * count;
  PREGATE_ASSIGN_OR_RETURN(const std::vector<uint32_t> ids,
                           tokenizer->Encode(text.substr(0, needed * 16), false));
  if (ids.size() < needed) {
    return absl::InvalidArgumentError(
        absl::StrCat("text: has ", ids.size(), " tokens; ", needed, " are needed"));
  }
  for (size_t i = 0; i < prompts.size(); ++i) {
    prompts[i].assign(ids.begin() + static_cast<std::ptrdiff_t>(i * length),
                      ids.begin() + static_cast<std::ptrdiff_t>((i + 1) * length));
  }
  return prompts;
}

}  // namespace pregate
