// How well a model predicts a text.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace pregate {

// Consecutive tokens of a document. All but the last are read; tokens[i] is predicted from those
// before it, and counts from i = first_scored on.
struct Window {
  absl::Span<const uint32_t> tokens;  // at least two
  size_t first_scored = 1;            // in [1, tokens.size())
};

// Cuts a document's tokens (at least two) into windows that read at most `context` (≥ 2) of them
// and begin half a context apart. Each token but the document's first is scored in the first window
// that predicts it.
std::vector<Window> CutWindows(absl::Span<const uint32_t> tokens, uint32_t context);

struct Perplexity {
  uint64_t tokens = 0;  // scored
  uint64_t bytes = 0;   // of the text, separators of documents included
  double nll_nats = 0;  // sum of -ln p over the scored tokens

  double bits_per_byte() const;
  double perplexity() const;  // per token
};

struct PerplexityOptions {
  uint32_t context = 0;       // ≥ 2
  uint32_t eos_token_id = 0;  // ends each document, and stands before it as its start context
  size_t batch_tokens = 0;    // read at once at most; ≥ context
  // A document's tokens.
  std::function<absl::StatusOr<std::vector<uint32_t>>(absl::string_view)> encode;
  // Sum of -ln p over the scored tokens of some windows.
  std::function<absl::StatusOr<double>(absl::Span<const Window>)> score;
};

// Scores the documents of `text` apart. Shows its progress on stderr.
absl::StatusOr<Perplexity> MeasurePerplexity(absl::string_view text,
                                             const PerplexityOptions& options);

}  // namespace pregate
