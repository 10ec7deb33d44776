#include "bench/offload_comparison.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "bench/control_predictors.h"
#include "bench/lockstep_decoder.h"
#include "core/base/status_macros.h"
#include "core/expert/eviction_belady.h"
#include "core/text/tokenizer.h"

namespace pregate {
namespace {

struct Way {
  const char* speculation;
  const char* control;
};

std::vector<Way> WaysOf(bool is_pregated) {
  std::vector<Way> ways = {
      {"none", ""}, {"layer_minus_1", ""}, {"multi_layer", ""}, {"gate_lookahead", ""}};
  if (is_pregated) ways.push_back({"pregate", ""});
  ways.push_back({"adaptive", ""});
  for (const char* control :
       {"all_resident", "on_demand", "lru_only", "layer_prefetch", "oracle"}) {
    ways.push_back({"none", control});
  }
  return ways;
}

// What the sequences read: the text's tokens one stretch after another, else random ones.
absl::StatusOr<std::vector<std::vector<uint32_t>>> MakeStretches(
    const OffloadComparisonOptions& options, uint32_t vocab_size, size_t length) {
  std::vector<std::vector<uint32_t>> stretches(options.batch_size);
  if (options.text.empty()) {
    std::mt19937 random(options.batch_size);
    for (std::vector<uint32_t>& stretch : stretches) {
      for (size_t i = 0; i < length; ++i) stretch.push_back(random() % vocab_size);
    }
    return stretches;
  }
  PREGATE_ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer,
                           Tokenizer::Load(options.engine.model));
  // More than enough: a token has at most a few bytes on average.
  const size_t needed = length * stretches.size();
  const absl::string_view text = absl::string_view(options.text).substr(0, needed * 16);
  PREGATE_ASSIGN_OR_RETURN(const std::vector<uint32_t> ids, tokenizer->Encode(text, false));
  if (ids.size() < needed) {
    return absl::InvalidArgumentError(
        absl::StrCat("text: has ", ids.size(), " tokens; ", needed, " are needed"));
  }
  for (size_t i = 0; i < stretches.size(); ++i) {
    stretches[i].assign(ids.begin() + i * length, ids.begin() + (i + 1) * length);
  }
  return stretches;
}

uint64_t IssuedBytes(const ExpertCache::HintedBytes& bytes) {
  return bytes.useful + bytes.late + bytes.wasted + bytes.cancelled + bytes.pending;
}

// Runs the same steps in every way, one turn after another.
class Turns {
 public:
  static absl::StatusOr<std::unique_ptr<Turns>> Create(const OffloadComparisonOptions& options,
                                                       const Logger& logger);

  // One turn of `way`, which sets up the cache and starts cold. Adds to `row` unless that is null.
  absl::Status Run(const Way& way, OffloadRow* row);

  // Seconds of a layer's computing with everything resident: the least of a few turns.
  absl::StatusOr<double> MeasureLayerSeconds();

  const TorchRunner& runner() const { return *runner_; }
  ExpertOffload::State state() const { return runner_->experts().Read(); }
  // Tokens per second of the last turn.
  double last_rate() const { return last_rate_; }

 private:
  Turns(const OffloadComparisonOptions& options,
        std::unique_ptr<TorchRunner> runner,
        LockstepDecoder decoder)
      : options_(options), runner_(std::move(runner)), decoder_(std::move(decoder)) {}

  absl::Status SetUp(const Way& way);
  absl::Status UseOracle();
  absl::Status CheckLogits(const Way& way);
  void AddTo(OffloadRow& row, const ExpertCache::Snapshot& before, double seconds) const;

  const OffloadComparisonOptions& options_;
  const std::unique_ptr<TorchRunner> runner_;
  LockstepDecoder decoder_;
  std::vector<Routing> routings_;  // of every step of a turn, prompts included
  std::optional<uint64_t> logits_digest_;
  double last_rate_ = 0;
};

absl::StatusOr<std::unique_ptr<Turns>> Turns::Create(const OffloadComparisonOptions& options,
                                                     const Logger& logger) {
  PREGATE_ASSIGN_OR_RETURN(std::unique_ptr<TorchRunner> runner,
                           TorchRunner::Load(options.engine, logger));
  const uint32_t num_steps = options.settling + options.output_len;
  PREGATE_ASSIGN_OR_RETURN(
      std::vector<std::vector<uint32_t>> prompts,
      MakeStretches(options, runner->limits().vocab_size, options.input_len + num_steps + 1));
  std::vector<std::vector<uint32_t>> continuations;
  for (std::vector<uint32_t>& prompt : prompts) {
    continuations.emplace_back(prompt.begin() + options.input_len, prompt.end());
    prompt.resize(options.input_len);
  }
  PREGATE_ASSIGN_OR_RETURN(
      LockstepDecoder decoder,
      LockstepDecoder::Create(
          *runner, std::move(prompts), num_steps + 1, std::move(continuations)));
  return std::unique_ptr<Turns>(new Turns(options, std::move(runner), std::move(decoder)));
}

absl::Status Turns::UseOracle() {
  ExpertOffload& experts = runner_->experts();
  if (routings_.empty()) {
    PREGATE_RETURN_IF_ERROR(decoder_.Prefill(&routings_));
    for (uint32_t i = 0; i < options_.settling + options_.output_len; ++i) {
      PREGATE_RETURN_IF_ERROR(decoder_.Step(&routings_.emplace_back()));
    }
  }
  experts.UsePredictor(std::make_unique<OraclePredictor>(routings_));
  const ModelDescription& model = runner_->description();
  experts.UseEviction(std::make_unique<BeladyEviction>(
      LookupsOf(routings_, model.num_experts),
      EvictionShape{.num_layers = model.num_layers, .num_experts = model.num_experts}));
  return absl::OkStatus();
}

absl::Status Turns::SetUp(const Way& way) {
  ExpertOffload& experts = runner_->experts();
  const absl::string_view control = way.control;
  const bool is_resident = control == "all_resident";
  PREGATE_RETURN_IF_ERROR(
      experts.SetMemoryStrategy(control == "on_demand" ? "streaming" : "single_async"));
  PREGATE_RETURN_IF_ERROR(
      experts.SetCapacity(is_resident ? "100%" : options_.engine.experts.capacity));
  PREGATE_RETURN_IF_ERROR(
      experts.SetEviction(control == "lru_only" ? "lru" : options_.engine.experts.eviction));
  ExpertOffload::SpeculationChange speculation;
  speculation.mode = way.speculation;
  PREGATE_RETURN_IF_ERROR(experts.SetSpeculation(speculation));
  if (control == "layer_prefetch") {
    experts.UsePredictor(std::make_unique<LayerPrefetchPredictor>(
        runner_->description().num_layers, runner_->description().num_experts));
  }
  if (control == "oracle") PREGATE_RETURN_IF_ERROR(UseOracle());
  experts.Reset();
  return absl::OkStatus();
}

void Turns::AddTo(OffloadRow& row, const ExpertCache::Snapshot& before, double seconds) const {
  const ExpertCache::Snapshot after = runner_->experts().Read().cache;
  row.num_slots = after.num_slots;
  ++row.runs;
  row.seconds += seconds;
  row.stall_seconds += after.stall_seconds - before.stall_seconds;
  for (size_t i = 0; i < row.lookups.size(); ++i) {
    row.lookups[i] += after.lookups[i] - before.lookups[i];
  }
  row.prefetched.useful += after.hinted.useful - before.hinted.useful;
  row.prefetched.late += after.hinted.late - before.hinted.late;
  row.prefetched.wasted += after.hinted.wasted - before.hinted.wasted;
  row.prefetched.cancelled += after.hinted.cancelled - before.hinted.cancelled;
  // What was still open when the clock started was issued before it.
  row.prefetched.pending += after.hinted.pending;
  row.loaded_bytes += after.demanded_bytes - before.demanded_bytes + IssuedBytes(after.hinted) -
                      after.hinted.cancelled - IssuedBytes(before.hinted) + before.hinted.cancelled;
}

absl::Status Turns::CheckLogits(const Way& way) {
  if (!logits_digest_.has_value()) logits_digest_ = decoder_.logits_digest();
  if (*logits_digest_ == decoder_.logits_digest()) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("speculation ",
                                          way.speculation,
                                          ", control '",
                                          way.control,
                                          "': its logits are not those of the other ways"));
}

absl::Status Turns::Run(const Way& way, OffloadRow* row) {
  PREGATE_RETURN_IF_ERROR(SetUp(way));
  PREGATE_RETURN_IF_ERROR(decoder_.Prefill());
  for (uint32_t i = 0; i < options_.settling; ++i) PREGATE_RETURN_IF_ERROR(decoder_.Step());
  const ExpertCache::Snapshot before = runner_->experts().Read().cache;
  const RealClock clock;
  const TimePoint start = clock.Now();
  for (uint32_t i = 0; i < options_.output_len; ++i) PREGATE_RETURN_IF_ERROR(decoder_.Step());
  const double seconds = ToSeconds(clock.Now() - start);
  if (row != nullptr) AddTo(*row, before, seconds);
  last_rate_ = options_.output_len * decoder_.batch_size() / seconds;
  return CheckLogits(way);
}

absl::StatusOr<double> Turns::MeasureLayerSeconds() {
  constexpr int kTurns = 3;
  double rate = 0;
  for (int i = 0; i < kTurns; ++i) {
    PREGATE_RETURN_IF_ERROR(Run({"none", "all_resident"}, nullptr));
    rate = std::max(rate, last_rate_);
  }
  return decoder_.batch_size() / rate / runner_->description().num_layers;
}

}  // namespace

uint64_t MostTurns(const OffloadComparisonOptions& options) {
  return uint64_t{options.warmup + options.iterations} * WaysOf(/*is_pregated=*/true).size();
}

absl::StatusOr<OffloadComparison> CompareOffload(const OffloadComparisonOptions& given,
                                                 const Logger& logger,
                                                 const std::function<void()>& on_turn) {
  OffloadComparisonOptions options = given;
  OffloadComparison result;
  if (options.balance_link) {
    options.engine.experts.simulated_link.clear();
    PREGATE_ASSIGN_OR_RETURN(const std::unique_ptr<Turns> unpaced, Turns::Create(options, logger));
    PREGATE_ASSIGN_OR_RETURN(result.layer_seconds, unpaced->MeasureLayerSeconds());
    const uint64_t record_bytes = unpaced->state().cache.slot_bytes;
    result.record_seconds = result.layer_seconds;
    options.engine.experts.simulated_link =
        absl::StrFormat("%.0fB/s,0us", static_cast<double>(record_bytes) / result.layer_seconds);
  }
  PREGATE_ASSIGN_OR_RETURN(const std::unique_ptr<Turns> turns, Turns::Create(options, logger));
  const ExpertOffload::State state = turns->state();
  result.model = state.model.name;
  result.codec = state.codec;
  result.num_experts = state.model.num_layers * state.model.num_experts;
  result.link = options.engine.experts.simulated_link;

  const std::vector<Way> ways = WaysOf(state.model.is_pregated);
  for (const Way& way : ways) {
    OffloadRow& row = result.rows.emplace_back();
    row.speculation = way.speculation;
    row.control = way.control;
    row.batch_size = options.batch_size;
  }
  std::vector<std::vector<double>> rates(ways.size());
  for (uint32_t turn = 0; turn < options.warmup + options.iterations; ++turn) {
    for (size_t i = 0; i < ways.size(); ++i) {
      const bool counts = turn >= options.warmup;
      PREGATE_RETURN_IF_ERROR(turns->Run(ways[i], counts ? &result.rows[i] : nullptr));
      if (counts) rates[i].push_back(turns->last_rate());
      on_turn();
    }
  }
  for (size_t i = 0; i < ways.size(); ++i) {
    result.rows[i].tokens_per_second = SpreadOf(std::move(rates[i]));
  }
  return result;
}

}  // namespace pregate
