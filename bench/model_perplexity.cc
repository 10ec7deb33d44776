#include "bench/model_perplexity.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/model/torch_runner.h"
#include "core/text/tokenizer.h"

namespace pregate {
namespace {

constexpr uint32_t kBatchTokens = 2048;  // enough rows for fast products

// -ln softmax(logits)[token].
double NegativeLogProbability(absl::Span<const float> logits, uint32_t token) {
  const float highest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - highest);
  return std::log(sum) - (logits[token] - highest);
}

// Blocks for runs of the given lengths, from the first block on.
class BlockTables {
 public:
  explicit BlockTables(uint32_t block_size) : block_size_(block_size) {}

  std::vector<uint32_t> Take(size_t num_tokens) {
    std::vector<uint32_t> blocks((num_tokens + block_size_ - 1) / block_size_);
    for (uint32_t& block : blocks) block = next_++;
    return blocks;
  }

 private:
  const uint32_t block_size_;
  uint32_t next_ = 0;
};

// Sum of -ln p over the scored tokens of `windows`, which read at most the runner's
// max_batch_tokens.
absl::StatusOr<double> Score(TorchRunner& runner, absl::Span<const Window> windows) {
  BlockTables tables(runner.limits().kv_block_size);
  std::vector<std::vector<uint32_t>> blocks;
  std::vector<TokenRun> runs;
  std::vector<uint32_t> predicting;  // tokens of the batch
  std::vector<uint32_t> predicted;   // token ids
  uint32_t first = 0;                // token of the batch: the window's first
  for (const Window& window : windows) {
    const size_t num_read = window.tokens.size() - 1;
    blocks.push_back(tables.Take(num_read));
    runs.push_back({.token_ids = window.tokens.subspan(0, num_read),
                    .first_position = 0,
                    .blocks = blocks.back()});
    for (size_t i = window.first_scored; i <= num_read; ++i) {
      predicting.push_back(first + static_cast<uint32_t>(i - 1));
      predicted.push_back(window.tokens[i]);
    }
    first += static_cast<uint32_t>(num_read);
  }
  PREGATE_ASSIGN_OR_RETURN(
      const absl::Span<const float> logits,
      runner.Forward({.runs = runs, .logit_tokens = predicting}, /*routing=*/nullptr));
  const size_t vocab_size = runner.limits().vocab_size;
  double nats = 0;
  for (size_t i = 0; i < predicted.size(); ++i) {
    nats += NegativeLogProbability(logits.subspan(i * vocab_size, vocab_size), predicted[i]);
  }
  return nats;
}

}  // namespace

absl::StatusOr<ModelPerplexity> MeasureModelPerplexity(EngineOptions options,
                                                       absl::string_view text,
                                                       const Logger& logger) {
  options.max_batch_tokens = std::max(options.max_batch_tokens, kBatchTokens);
  PREGATE_ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer,
                           Tokenizer::Load(options.model));
  PREGATE_ASSIGN_OR_RETURN(const std::unique_ptr<TorchRunner> runner,
                           TorchRunner::Load(options, logger));
  const ModelDescription& model = runner->description();
  if (model.eos_token_ids.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat(options.model, ": the model has no eos_token_id to end documents with"));
  }
  const uint32_t context = std::min(runner->limits().max_context, runner->max_batch_tokens());
  if (context < 2) {
    return absl::InvalidArgumentError(absl::StrCat("a context of ", context, " predicts nothing"));
  }
  PREGATE_ASSIGN_OR_RETURN(
      const Perplexity figures,
      MeasurePerplexity(
          text,
          {.context = context,
           .eos_token_id = model.eos_token_ids.front(),
           .batch_tokens = runner->max_batch_tokens(),
           .encode =
               [&](absl::string_view document) {
                 return tokenizer->Encode(document, /*add_special_tokens=*/false);
               },
           .score = [&](absl::Span<const Window> windows) { return Score(*runner, windows); }}));
  return ModelPerplexity{.model = model.name,
                         .codec = runner->experts().Read().codec,
                         .dtype = model.dtype,
                         .context = context,
                         .figures = figures};
}

}  // namespace pregate
