// A model folder's tokenizer.json: what Load accepts encodes and decodes any text, and the pieces
// of a stream are the whole.
#include <algorithm>
#include <string>
#include <vector>

#include "core/text/detokenizer.h"
#include "core/text/tokenizer.h"
#include "tests/fuzz/fuzz_input.h"
#include "tests/support/temp_folder.h"

namespace pregate {
namespace {

constexpr absl::string_view kTexts[] = {
    "", "the he", "  the\n\nthe 12 <s> <|end|>", "日本 été \xF0\x9F\x98\x80 e\xCC\x81"};
constexpr size_t kMostIds = 300;  // that are looked at, of a vocabulary

void DecodeAndStream(const Tokenizer& tokenizer, const std::vector<uint32_t>& ids) {
  for (const bool skip_special_tokens : {false, true}) {
    const absl::StatusOr<std::string> whole = tokenizer.Decode(ids, skip_special_tokens);
    Detokenizer detokenizer(tokenizer, skip_special_tokens);
    std::string streamed;
    bool is_streamed = true;
    for (const uint32_t id : ids) {
      const absl::StatusOr<std::string> piece = detokenizer.Append(id);
      is_streamed = is_streamed && piece.ok();
      if (piece.ok()) streamed += *piece;
    }
    const absl::StatusOr<std::string> rest = detokenizer.Flush();
    if (!whole.ok() || !is_streamed || !rest.ok()) continue;
    streamed += *rest;
    PREGATE_CHECK(streamed == *whole, "streamed '", streamed, "', whole '", *whole, "'");
  }
}

void Use(const Tokenizer& tokenizer) {
  for (const absl::string_view text : kTexts) {
    for (const bool add_special_tokens : {false, true}) {
      const absl::StatusOr<std::vector<uint32_t>> ids = tokenizer.Encode(text, add_special_tokens);
      if (!ids.ok()) continue;
      DecodeAndStream(tokenizer, *ids);
      for (const uint32_t id : *ids) PREGATE_CHECK(id < tokenizer.vocab_size(), id);
    }
  }
  std::vector<uint32_t> all;
  for (uint32_t id = 0; id < std::min(tokenizer.vocab_size(), kMostIds); ++id) {
    tokenizer.IsSpecial(id);
    if (tokenizer.Decode({id}, false).ok()) all.push_back(id);
  }
  DecodeAndStream(tokenizer, all);
  tokenizer.TokenToId("the");
  PREGATE_CHECK(absl::IsInvalidArgument(tokenizer.Encode("\xFF", false).status()));
}

}  // namespace
}  // namespace pregate

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const pregate::TempFolder folder;
  folder.Write("tokenizer.json", std::string(pregate::TextOf(data, size)));
  const auto tokenizer = pregate::Tokenizer::Load(folder.path());
  if (tokenizer.ok()) pregate::Use(**tokenizer);
  return 0;
}
