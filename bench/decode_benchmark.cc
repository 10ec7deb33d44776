#include "bench/decode_benchmark.h"

#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "bench/control_predictors.h"
#include "bench/decode_rate.h"
#include "bench/lockstep_decoder.h"
#include "bench/prompts.h"
#include "core/base/status_macros.h"

namespace pregate {
namespace {

// One figure, turn by turn.
class Series {
 public:
  // `whole` 0: there is nothing to say of this turn.
  void AddRatio(double part, double whole) {
    if (whole > 0) values_.push_back(part / whole);
  }
  bool empty() const { return values_.empty(); }
  Spread spread() const { return values_.empty() ? Spread() : SpreadOf(values_); }

 private:
  std::vector<double> values_;
};

// The turns of one Run.
class Turns {
 public:
  void Add(double rate, std::optional<double> bound, const MeteredRun& run) {
    rate_.AddRatio(rate, 1);
    if (bound.has_value()) {
      bound_.AddRatio(*bound, 1);
      ratio_.AddRatio(rate, *bound);
    }
    double prompt_tokens = 0;
    for (const MeteredStep& step : run.prefill.steps) prompt_tokens += step.num_prompt_tokens;
    prefill_.AddRatio(prompt_tokens, run.prefill.seconds());
    double tokens = 0;
    for (const MeteredStep& step : run.decode.steps) tokens += step.num_sequences;
    const double seconds = run.decode.seconds();
    const ExpertCounts& experts = run.decode.experts;
    const auto lookups = static_cast<double>(experts.num_lookups());
    for (size_t i = 0; i < lookups_.size(); ++i) {
      lookups_[i].AddRatio(static_cast<double>(experts.lookups()[i]), lookups);
    }
    const auto loaded_bytes = static_cast<double>(experts.loaded_bytes);
    bytes_per_token_.AddRatio(loaded_bytes, tokens);
    bytes_per_second_.AddRatio(loaded_bytes, seconds);
    stall_.AddRatio(experts.stall_seconds, seconds);
    steps_.prefill += run.prefill;
    steps_.decode += run.decode;
  }

  DecodeFigures figures() && {
    DecodeFigures figures;
    figures.tokens_per_second = rate_.spread();
    if (!bound_.empty()) {
      figures.bound_tokens_per_second = bound_.spread();
      figures.ratio = ratio_.spread();
    }
    figures.prefill_tokens_per_second = prefill_.spread();
    figures.hit_rate = lookups_[0].spread();
    figures.late_hit_rate = lookups_[1].spread();
    figures.miss_rate = lookups_[2].spread();
    figures.loaded_bytes_per_token = bytes_per_token_.spread();
    figures.link_bytes_per_second = bytes_per_second_.spread();
    figures.stall_share = stall_.spread();
    figures.steps = std::move(steps_);
    return figures;
  }

 private:
  Series rate_;
  Series bound_;
  Series ratio_;
  Series prefill_;
  std::array<Series, 3> lookups_;  // by Lookup
  Series bytes_per_token_;
  Series bytes_per_second_;
  Series stall_;
  MeteredRun steps_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<DecodeBenchmark>> DecodeBenchmark::Create(
    const EngineOptions& options, ForcedRouting routing, const Logger& logger) {
  PREGATE_ASSIGN_OR_RETURN(std::unique_ptr<Tokenizer> tokenizer, Tokenizer::Load(options.model));
  PREGATE_ASSIGN_OR_RETURN(std::unique_ptr<TorchRunner> torch, TorchRunner::Load(options, logger));
  PREGATE_RETURN_IF_ERROR(Force(routing, *torch));
  if (routing.simulated.has_value()) {
    PREGATE_RETURN_IF_ERROR(UseSimulated(routing, torch->experts()));
  }
  const ModelDescription description = torch->description();
  auto runner = std::make_unique<MeteredRunner>(std::move(torch));
  MeteredRunner& metered = *runner;
  PREGATE_ASSIGN_OR_RETURN(std::unique_ptr<Engine> engine,
                           Engine::Assemble({.model = description,
                                             .tokenizer = std::move(tokenizer),
                                             .chat_template = nullptr,
                                             .runner = std::move(runner),
                                             .clock = std::make_unique<RealClock>()},
                                            options,
                                            logger));
  return std::unique_ptr<DecodeBenchmark>(
      new DecodeBenchmark(options.model, std::move(engine), metered, std::move(routing)));
}

absl::StatusOr<std::vector<Routing>> DecodeBenchmark::RecordRoutings() {
  const uint64_t num_forced = routing_.trace == nullptr ? 1 : routing_.trace->sequences.size();
  PREGATE_ASSIGN_OR_RETURN(LockstepDecoder decoder,
                           LockstepDecoder::Create(runner_.runner(),
                                                   prompts_,
                                                   output_len_,
                                                   /*continuations=*/{},
                                                   num_forced * prompts_.size()));
  std::vector<Routing> routings;
  PREGATE_RETURN_IF_ERROR(decoder.Prefill(&routings));
  for (uint32_t i = 1; i < output_len_; ++i) {
    PREGATE_RETURN_IF_ERROR(decoder.Step(&routings.emplace_back()));
  }
  return routings;
}

absl::StatusOr<RoutingTrace> DecodeBenchmark::RecordRouting() {
  if (prompts_.empty()) return absl::FailedPreconditionError("nothing has been run yet");
  PREGATE_ASSIGN_OR_RETURN(const std::vector<Routing> routings, RecordRoutings());
  return TraceOf(
      routings, static_cast<uint32_t>(prompts_.size()), model().name, model().num_experts);
}

absl::StatusOr<double> DecodeBenchmark::MeasureBound(const std::vector<Routing>& routings) {
  const size_t num_steps = routings.size() - prompts_.size();
  double seconds = 0;
  for (size_t i = prompts_.size(); i < routings.size(); ++i) {
    PREGATE_ASSIGN_OR_RETURN(
        const double step_seconds,
        runner_.runner().MeasureProducts(routings[i], static_cast<uint32_t>(prompts_.size()), 1));
    seconds += step_seconds;
  }
  return static_cast<double>(num_steps * prompts_.size()) / seconds;
}

absl::StatusOr<DecodeFigures> DecodeBenchmark::Run(const DecodeOptions& options) {
  if (options.input_len + options.output_len > model().max_context) {
    return absl::InvalidArgumentError(absl::StrCat("--input-len ",
                                                   options.input_len,
                                                   " and --output-len ",
                                                   options.output_len,
                                                   " exceed the context of ",
                                                   model().max_context,
                                                   " tokens"));
  }
  PREGATE_ASSIGN_OR_RETURN(
      prompts_,
      MakePrompts(
          model_folder_, options.text, options.batch_size, options.input_len, model().vocab_size));
  output_len_ = options.output_len;
  std::vector<Routing> routings;
  if (options.has_bound) {
    PREGATE_ASSIGN_OR_RETURN(routings, RecordRoutings());
  }
  Turns turns;
  for (uint32_t turn = 0; turn < options.warmup + options.iterations; ++turn) {
    runner_.Start(options.batch_size);
    PREGATE_ASSIGN_OR_RETURN(const double rate, MeasureDecodeRate(*engine_, prompts_, output_len_));
    const MeteredRun run = runner_.Stop();
    std::optional<double> bound;
    if (options.has_bound) {
      PREGATE_ASSIGN_OR_RETURN(bound, MeasureBound(routings));
    }
    if (turn >= options.warmup) turns.Add(rate, bound, run);
  }
  DecodeFigures figures = std::move(turns).figures();
  const ExpertOffload::State state = experts();
  if (!state.is_unified) figures.num_slots = state.cache.num_slots;
  return figures;
}

}  // namespace pregate
