#include "bench/decode_benchmark.h"

#include <algorithm>
#include <random>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bench/decode_rate.h"
#include "core/base/status_macros.h"

namespace pregate {
namespace {

// The same for each call with the same sizes.
std::vector<std::vector<uint32_t>> RandomPrompts(const DecodeOptions& options,
                                                 uint32_t vocab_size) {
  std::mt19937 random(options.batch_size);
  std::vector<std::vector<uint32_t>> prompts(options.batch_size);
  for (std::vector<uint32_t>& prompt : prompts) {
    for (uint32_t i = 0; i < options.input_len; ++i) prompt.push_back(random() % vocab_size);
  }
  return prompts;
}

// The routing of each decode step of the prompts' greedy answers.
absl::StatusOr<std::vector<Routing>> RecordRoutings(
    TorchRunner& runner, const std::vector<std::vector<uint32_t>>& prompts, uint32_t output_len) {
  const ModelRunner::Limits& limits = runner.limits();
  const auto input_len = static_cast<uint32_t>(prompts.front().size());
  const uint32_t blocks_each = (input_len + output_len - 1) / limits.kv_block_size + 1;
  if (uint64_t{blocks_each} * prompts.size() > limits.num_kv_blocks) {
    return absl::InvalidArgumentError(absl::StrCat(
        prompts.size(), " sequences of ", input_len + output_len, " tokens overrun the KV cache"));
  }
  std::vector<std::vector<uint32_t>> blocks(prompts.size());
  std::vector<uint32_t> last(prompts.size());  // token of each sequence
  const auto greedy = [&](absl::Span<const float> logits, size_t row) {
    const auto values = logits.subspan(row * limits.vocab_size, limits.vocab_size);
    return static_cast<uint32_t>(std::max_element(values.begin(), values.end()) - values.begin());
  };
  for (uint32_t i = 0; i < prompts.size(); ++i) {
    for (uint32_t j = 0; j < blocks_each; ++j) blocks[i].push_back(i * blocks_each + j);
    const TokenRun run{.token_ids = prompts[i], .first_position = 0, .blocks = blocks[i]};
    const uint32_t last_token = input_len - 1;
    PREGATE_ASSIGN_OR_RETURN(
        const absl::Span<const float> logits,
        runner.Forward({.runs = {&run, 1}, .logit_tokens = {&last_token, 1}}, nullptr));
    last[i] = greedy(logits, 0);
  }

  std::vector<uint32_t> rows(prompts.size());
  for (uint32_t i = 0; i < rows.size(); ++i) rows[i] = i;
  std::vector<Routing> routings(output_len - 1);
  for (uint32_t step = 0; step < routings.size(); ++step) {
    std::vector<TokenRun> runs;
    for (uint32_t i = 0; i < prompts.size(); ++i) {
      runs.push_back(
          {.token_ids = {&last[i], 1}, .first_position = input_len + step, .blocks = blocks[i]});
    }
    PREGATE_ASSIGN_OR_RETURN(const absl::Span<const float> logits,
                             runner.Forward({.runs = runs, .logit_tokens = rows}, &routings[step]));
    for (uint32_t i = 0; i < prompts.size(); ++i) last[i] = greedy(logits, i);
  }
  return routings;
}

}  // namespace

absl::StatusOr<std::unique_ptr<DecodeBenchmark>> DecodeBenchmark::Create(
    const EngineOptions& options, const Logger& logger) {
  PREGATE_ASSIGN_OR_RETURN(std::unique_ptr<Tokenizer> tokenizer, Tokenizer::Load(options.model));
  PREGATE_ASSIGN_OR_RETURN(std::unique_ptr<TorchRunner> runner, TorchRunner::Load(options, logger));
  TorchRunner& torch_runner = *runner;
  PREGATE_ASSIGN_OR_RETURN(std::unique_ptr<Engine> engine,
                           Engine::Assemble({.model = torch_runner.description(),
                                             .tokenizer = std::move(tokenizer),
                                             .chat_template = nullptr,
                                             .runner = std::move(runner),
                                             .clock = std::make_unique<RealClock>()},
                                            options,
                                            logger));
  return std::unique_ptr<DecodeBenchmark>(new DecodeBenchmark(std::move(engine), torch_runner));
}

absl::StatusOr<Comparison> DecodeBenchmark::Run(const DecodeOptions& options) {
  if (options.input_len + options.output_len > model().max_context) {
    return absl::InvalidArgumentError(absl::StrCat("--input-len ",
                                                   options.input_len,
                                                   " and --output-len ",
                                                   options.output_len,
                                                   " exceed the context of ",
                                                   model().max_context,
                                                   " tokens"));
  }
  const std::vector<std::vector<uint32_t>> prompts = RandomPrompts(options, model().vocab_size);
  PREGATE_ASSIGN_OR_RETURN(const std::vector<Routing> routings,
                           RecordRoutings(runner_, prompts, options.output_len));
  const auto bound = [&]() -> absl::StatusOr<double> {
    double seconds = 0;
    for (const Routing& routing : routings) {
      PREGATE_ASSIGN_OR_RETURN(const double step_seconds,
                               runner_.MeasureProducts(routing, options.batch_size, 1));
      seconds += step_seconds;
    }
    return static_cast<double>(routings.size()) * options.batch_size / seconds;
  };
  return Compare([&] { return MeasureDecodeRate(*engine_, prompts, options.output_len); },
                 bound,
                 options.warmup,
                 options.iterations);
}

}  // namespace pregate
