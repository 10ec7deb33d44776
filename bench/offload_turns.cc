#include "bench/offload_turns.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "bench/control_predictors.h"
#include "bench/prompts.h"
#include "core/base/clock.h"
#include "core/base/status_macros.h"
#include "core/expert/eviction_belady.h"

namespace pregate {

absl::StatusOr<std::unique_ptr<OffloadTurns>> OffloadTurns::Create(const OffloadWork& work,
                                                                   const Logger& logger) {
  if (work.engine.experts.codec == "adaptive") {
    return absl::InvalidArgumentError(
        "--expert-codec adaptive: what it computes depends on how long steps wait, and all turns "
        "have to compute the same; pregate-bench benchmark takes it");
  }
  PREGATE_ASSIGN_OR_RETURN(std::unique_ptr<TorchRunner> runner,
                           TorchRunner::Load(work.engine, logger));
  PREGATE_RETURN_IF_ERROR(Force(work.routing, *runner));
  const uint32_t num_steps = work.settling + work.output_len;
  PREGATE_ASSIGN_OR_RETURN(std::vector<std::vector<uint32_t>> prompts,
                           MakePrompts(work.engine.model,
                                       work.text,
                                       work.batch_size,
                                       work.input_len + num_steps + 1,
                                       runner->limits().vocab_size));
  std::vector<std::vector<uint32_t>> continuations;
  for (std::vector<uint32_t>& prompt : prompts) {
    continuations.emplace_back(prompt.begin() + work.input_len, prompt.end());
    prompt.resize(work.input_len);
  }
  // Every turn is to be routed alike, by a forced trace as by the oracle's.
  const uint64_t num_forced =
      work.routing.trace == nullptr ? 1 : work.routing.trace->sequences.size();
  PREGATE_ASSIGN_OR_RETURN(LockstepDecoder decoder,
                           LockstepDecoder::Create(*runner,
                                                   std::move(prompts),
                                                   num_steps + 1,
                                                   std::move(continuations),
                                                   num_forced * work.batch_size));
  return std::unique_ptr<OffloadTurns>(
      new OffloadTurns(work, std::move(runner), std::move(decoder)));
}

absl::Status OffloadTurns::UseOracle() {
  ExpertOffload& experts = runner_->experts();
  const ModelDescription& model = runner_->description();
  if (routings_.empty()) {
    PREGATE_RETURN_IF_ERROR(decoder_.Prefill(&routings_));
    for (uint32_t i = 0; i < work_.settling + work_.output_len; ++i) {
      PREGATE_RETURN_IF_ERROR(decoder_.Step(&routings_.emplace_back()));
    }
  }
  experts.UsePredictor(std::make_unique<OraclePredictor>(std::make_shared<const RoutingTrace>(
      TraceOf(routings_, work_.batch_size, model.name, model.num_experts))));
  experts.UseEviction(std::make_unique<BeladyEviction>(
      LookupsOf(routings_, model.num_experts),
      EvictionShape{.num_layers = model.num_layers, .num_experts = model.num_experts}));
  return absl::OkStatus();
}

absl::Status OffloadTurns::SetSpeculation(const OffloadWay& way) {
  ExpertOffload& experts = runner_->experts();
  if (way.control == "simulated") return UseSimulated(work_.routing, experts);
  const ExpertOptions& flags = work_.engine.experts;
  ExpertOffload::SpeculationChange change;
  change.mode = way.speculation;
  change.lookahead = flags.speculation_lookahead;
  // The predictors of controls know what they say: all of it is acted on.
  change.aggressiveness = way.control.empty() ? flags.speculation_aggressiveness : 1;
  change.confidence = way.control.empty() ? flags.speculation_confidence : 0;
  PREGATE_RETURN_IF_ERROR(experts.SetSpeculation(change));
  if (way.control == "layer_prefetch") {
    experts.UsePredictor(std::make_unique<LayerPrefetchPredictor>(
        runner_->description().num_layers, runner_->description().num_experts));
  }
  if (way.control == "oracle") return UseOracle();
  return absl::OkStatus();
}

absl::Status OffloadTurns::SetUp(const OffloadWay& way) {
  ExpertOffload& experts = runner_->experts();
  const std::string& control = way.control;
  PREGATE_RETURN_IF_ERROR(
      experts.SetMemoryStrategy(control == "on_demand" ? "streaming" : "single_async"));
  PREGATE_RETURN_IF_ERROR(experts.SetCapacity(control == "all_resident" ? "100%" : way.capacity));
  PREGATE_RETURN_IF_ERROR(
      experts.SetEviction(control == "lru_only" ? "lru" : work_.engine.experts.eviction));
  PREGATE_RETURN_IF_ERROR(SetSpeculation(way));
  experts.Reset();
  return absl::OkStatus();
}

absl::Status OffloadTurns::CheckLogits(const OffloadWay& way) {
  if (!logits_digest_.has_value()) logits_digest_ = decoder_.logits_digest();
  if (*logits_digest_ == decoder_.logits_digest()) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("speculation ",
                                          way.speculation,
                                          ", control '",
                                          way.control,
                                          "': its logits are not those of the other ways"));
}

absl::Status OffloadTurns::Settle() {
  PREGATE_RETURN_IF_ERROR(decoder_.Prefill());
  for (uint32_t i = 0; i < work_.settling; ++i) PREGATE_RETURN_IF_ERROR(decoder_.Step());
  return absl::OkStatus();
}

absl::Status OffloadTurns::RunSteps() {
  for (uint32_t i = 0; i < work_.output_len; ++i) PREGATE_RETURN_IF_ERROR(decoder_.Step());
  return absl::OkStatus();
}

absl::StatusOr<OffloadTurn> OffloadTurns::Run(const OffloadWay& way) {
  PREGATE_RETURN_IF_ERROR(SetUp(way));
  const ModelDescription& model = runner_->description();
  if (state().cache.num_slots == model.num_layers * model.num_experts && way.control != "oracle") {
    PREGATE_RETURN_IF_ERROR(Settle());
    PREGATE_RETURN_IF_ERROR(RunSteps());
  }
  PREGATE_RETURN_IF_ERROR(Settle());
  const ExpertOffload::State before = state();
  const RealClock clock;
  const TimePoint start = clock.Now();
  PREGATE_RETURN_IF_ERROR(RunSteps());
  OffloadTurn turn;
  turn.seconds = ToSeconds(clock.Now() - start);
  turn.num_tokens = uint64_t{work_.output_len} * decoder_.batch_size();
  const ExpertOffload::State after = state();
  turn.num_slots = after.cache.num_slots;
  turn.layers_seconds = after.layers_seconds - before.layers_seconds;
  turn.experts = CountsOf(after).Since(CountsOf(before));
  PREGATE_RETURN_IF_ERROR(CheckLogits(way));
  return turn;
}

}  // namespace pregate
