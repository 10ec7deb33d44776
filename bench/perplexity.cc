#include "bench/perplexity.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

#include "bench/corpus.h"
#include "core/base/check.h"
#include "core/base/status_macros.h"
#include "tools/cli.h"

namespace pregate {

std::vector<Window> CutWindows(absl::Span<const uint32_t> tokens, uint32_t context) {
  PREGATE_CHECK(tokens.size() >= 2 && context >= 2, tokens.size(), " tokens, context ", context);
  std::vector<Window> windows;
  size_t scored = 1;  // the first token that no window has scored
  for (size_t first = 0; scored < tokens.size(); first += context / 2) {
    const size_t end = std::min(first + context + 1, tokens.size());
    windows.push_back(
        {.tokens = tokens.subspan(first, end - first), .first_scored = scored - first});
    scored = end;
  }
  return windows;
}

double Perplexity::bits_per_byte() const {
  return nll_nats / std::numbers::ln2 / static_cast<double>(bytes);
}

double Perplexity::perplexity() const { return std::exp(nll_nats / static_cast<double>(tokens)); }

absl::StatusOr<Perplexity> MeasurePerplexity(absl::string_view text,
                                             const PerplexityOptions& options) {
  PREGATE_CHECK(options.batch_tokens >= options.context);
  if (text.empty()) return absl::InvalidArgumentError("the text is empty");
  std::vector<std::vector<uint32_t>> documents;
  Perplexity result{.bytes = text.size()};
  for (const absl::string_view document : SplitDocuments(text)) {
    PREGATE_ASSIGN_OR_RETURN(std::vector<uint32_t> tokens, options.encode(document));
    tokens.insert(tokens.begin(), options.eos_token_id);
    tokens.push_back(options.eos_token_id);
    result.tokens += tokens.size() - 1;
    documents.push_back(std::move(tokens));
  }

  Progress progress("scoring", result.tokens);
  std::vector<Window> batch;
  size_t batch_size = 0;  // tokens read
  uint64_t batch_scored = 0;
  const auto score = [&]() -> absl::Status {
    if (batch.empty()) return absl::OkStatus();
    PREGATE_ASSIGN_OR_RETURN(const double nats, options.score(batch));
    result.nll_nats += nats;
    progress.Advance(batch_scored);
    batch.clear();
    batch_size = batch_scored = 0;
    return absl::OkStatus();
  };
  for (const std::vector<uint32_t>& tokens : documents) {
    for (const Window& window : CutWindows(tokens, options.context)) {
      const size_t size = window.tokens.size() - 1;
      if (batch_size + size > options.batch_tokens) PREGATE_RETURN_IF_ERROR(score());
      batch.push_back(window);
      batch_size += size;
      batch_scored += window.tokens.size() - window.first_scored;
    }
  }
  PREGATE_RETURN_IF_ERROR(score());
  return result;
}

}  // namespace pregate
