#include "bench/decode_benchmark.h"

#include <algorithm>
#include <random>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bench/decode_rate.h"
#include "bench/lockstep_decoder.h"
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
  PREGATE_ASSIGN_OR_RETURN(LockstepDecoder decoder,
                           LockstepDecoder::Create(runner, prompts, output_len));
  PREGATE_RETURN_IF_ERROR(decoder.Prefill());
  std::vector<Routing> routings(output_len - 1);
  for (Routing& routing : routings) PREGATE_RETURN_IF_ERROR(decoder.Step(&routing));
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
