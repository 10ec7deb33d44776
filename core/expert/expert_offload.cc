#include "core/expert/expert_offload.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <future>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/bytes.h"
#include "core/base/check.h"
#include "core/base/mutex.h"
#include "core/base/status_macros.h"
#include "core/base/thread.h"
#include "core/expert/encoding_switch.h"
#include "core/expert/prefetcher.h"
#include "core/expert/slot_budget.h"

namespace pregate {
namespace {

// Of routing kept for DumpRoutingTrace and --record-routing.
constexpr uint64_t kRecordedBytes = uint64_t{64} << 20;

std::string DefaultMode(const ExpertOptions& flags, const ExpertModel& model) {
  if (!flags.speculation.empty()) return flags.speculation;
  return model.is_pregated ? "pregate" : "adaptive";
}

// A line for each tenth, of work that may take minutes.
std::function<void(uint64_t, uint64_t)> LogProgress(const Logger& logger) {
  return [&logger, next = uint64_t{1}](uint64_t done, uint64_t total) mutable {
    if (done * 10 < next * total) return;
    next = done * 10 / std::max<uint64_t>(1, total) + 1;
    logger.Info("reading experts", {{"done", FormatBytes(done)}, {"of", FormatBytes(total)}});
  };
}

}  // namespace

class ExpertOffload::Parts {
 public:
  Parts(Options options, std::unique_ptr<Backend> backend, const Clock& clock, const Logger& logger)
      : options_(std::move(options)),
        backend_(std::move(backend)),
        clock_(clock),
        logger_(logger),
        recorder_(options_.model.name,
                  options_.model.num_layers,
                  options_.model.num_experts,
                  options_.model.experts_per_token,
                  kRecordedBytes),
        needs_(options_.slot_needs),
        budget_(needs_.budget_bytes, needs_.slot_bytes),
        plan_(options_.slots),
        strategy_(options_.flags.memory_strategy),
        capacity_(options_.flags.capacity),
        eviction_(options_.flags.eviction) {}
  ~Parts();

  absl::Status Open(std::vector<ExpertPack> packs);

  void BeginStep();
  void EndStep(uint64_t reduced_precision_tokens);
  absl::Status SetCapacity(absl::string_view capacity);
  absl::Status SetMemoryStrategy(absl::string_view strategy);
  absl::Status SetEviction(absl::string_view name);
  void CheckMemory();
  void UseEviction(std::unique_ptr<EvictionPolicy> policy);
  absl::Status SetSpeculation(const SpeculationChange& change);
  State Read() const;
  // Is it this look-up's turn to have its bytes compared?
  bool IsToBeVerified();
  absl::Status Verify(const ExpertId& id, const ExpertLease::Expert& expert, Stream& consumer);

  absl::StatusOr<DeviceProfile> MeasureDevice(ProfiledModel& model, const OnProfileStep& on_step) {
    return pregate::MeasureDevice(*backend_, tiers_.front()->pack(), clock_, model, on_step);
  }

  ExpertCache& cache() { return *cache_; }
  Prefetcher& prefetcher() { return *prefetcher_; }
  RoutingRecorder& recorder() { return recorder_; }
  const RoutingRecorder& recorder() const { return recorder_; }
  void VisitStats(StatsVisitor& visitor) const;

 private:
  void VisitLayers(StatsVisitor& visitor) const;
  PredictorShape Shape() const;
  absl::Status OpenPrefetcher();
  void WatchMemory();
  absl::Status Apply(SlotPlan plan) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Options options_;
  const std::unique_ptr<Backend> backend_;
  const Clock& clock_;
  const Logger& logger_;
  RoutingRecorder recorder_;
  std::vector<std::unique_ptr<HostTier>> tiers_;
  std::vector<std::string> codecs_;  // of each tier
  std::unique_ptr<ExpertCache> cache_;
  std::unique_ptr<CacheHints> hints_;
  std::unique_ptr<Prefetcher> prefetcher_;
  double to_verify_ = 0;  // look-ups whose turn has come, as a running sum of their share

  Counter layers_seconds_;
  TimePoint step_begun_;  // of the engine's thread

  // The codec "adaptive": of the engine's thread, but for what is counted.
  std::optional<EncodingSwitch> encoding_;
  double stall_seconds_ = 0;          // when the step began
  std::atomic<size_t> load_tier_{0};  // that loads take
  std::vector<Counter> switches_;     // to each tier
  Counter reduced_precision_tokens_;

  // Held while the cache is changed, which locks itself for a moment: operators come one by one.
  mutable Mutex mutex_;
  SlotNeeds needs_ ABSL_GUARDED_BY(mutex_);  // its budget is today's
  SlotBudget budget_ ABSL_GUARDED_BY(mutex_);
  SlotPlan plan_ ABSL_GUARDED_BY(mutex_);
  std::string strategy_ ABSL_GUARDED_BY(mutex_);  // as asked for
  std::string capacity_ ABSL_GUARDED_BY(mutex_);  // as asked for; "" = the strategy's
  std::string eviction_ ABSL_GUARDED_BY(mutex_);

  Mutex watch_mutex_;
  CondVar watch_ends_;
  bool is_closing_ ABSL_GUARDED_BY(watch_mutex_) = false;
  std::unique_ptr<Thread> watch_;  // last: it uses all of the above
};

absl::Status ExpertOffload::Parts::Open(std::vector<ExpertPack> packs) {
  PREGATE_CHECK(!packs.empty());
  if (packs.size() > 1) {
    encoding_.emplace(static_cast<double>(packs[1].header().record_bytes) /
                      static_cast<double>(packs[0].header().record_bytes));
  }
  switches_ = std::vector<Counter>(packs.size());
  uint64_t bytes_per_expert = 0;  // in all encodings
  for (const ExpertPack& pack : packs) bytes_per_expert += pack.stride_bytes();
  std::vector<RecordSource*> sources;
  for (ExpertPack& pack : packs) {
    const auto codec = pack.header().properties.find("codec");
    codecs_.push_back(codec == pack.header().properties.end() ? "" : codec->second);
    HostTier::Options host;
    // Each encoding holds the same number of experts.
    host.budget_bytes = options_.host_tier_bytes == UINT64_MAX
                            ? UINT64_MAX
                            : options_.host_tier_bytes / bytes_per_expert * pack.stride_bytes();
    host.on_progress = LogProgress(logger_);
    PREGATE_ASSIGN_OR_RETURN(std::unique_ptr<HostTier> tier,
                             HostTier::Create(std::move(pack), *backend_, host, logger_));
    sources.push_back(tier.get());
    tiers_.push_back(std::move(tier));
  }
  {
    MutexLock lock(mutex_);
    ExpertCache::Options cache;
    cache.num_slots = plan_.num_slots;
    cache.eviction = eviction_;
    cache.max_hinted_loads = plan_.max_hinted_loads;
    cache.drop_after_use = plan_.drop_after_use;
    cache.is_unified = plan_.is_unified;
    PREGATE_ASSIGN_OR_RETURN(cache_,
                             ExpertCache::Create(std::move(sources), *backend_, clock_, cache));
  }
  PREGATE_RETURN_IF_ERROR(OpenPrefetcher());
  if (options_.memory_period > Duration::zero()) {
    watch_ = std::make_unique<Thread>("slot budget", [this] { WatchMemory(); });
  }
  return absl::OkStatus();
}

void ExpertOffload::Parts::BeginStep() {
  step_begun_ = clock_.Now();
  if (encoding_.has_value()) stall_seconds_ = cache_->ReadPace().stall_seconds;
}

void ExpertOffload::Parts::EndStep(uint64_t reduced_precision_tokens) {
  layers_seconds_.Add(ToSeconds(clock_.Now() - step_begun_));
  if (!encoding_.has_value()) return;
  reduced_precision_tokens_.Add(static_cast<double>(reduced_precision_tokens));
  const double stall_seconds = cache_->ReadPace().stall_seconds - stall_seconds_;
  encoding_->OnStep(clock_.Now() - step_begun_, FromSeconds(stall_seconds));
  const size_t tier = encoding_->is_smaller() ? 1 : 0;
  if (tier == load_tier_.load()) return;
  load_tier_ = tier;
  cache_->SetEncoding(static_cast<uint32_t>(tier));
  switches_[tier].Add();
  logger_.Info(tier > 0 ? "steps wait for experts: smaller ones are loaded"
                        : "steps hardly wait for experts: exact ones are loaded again",
               {{"codec", codecs_[tier]}});
}

PredictorShape ExpertOffload::Parts::Shape() const {
  const ExpertModel& model = options_.model;
  return {.num_layers = model.num_layers,
          .num_experts = model.num_experts,
          .experts_per_token = model.experts_per_token,
          .is_pregated = model.is_pregated,
          .has_gates = true};
}

absl::Status ExpertOffload::Parts::OpenPrefetcher() {
  const ExpertOptions& flags = options_.flags;
  hints_ = std::make_unique<CacheHints>(*cache_);
  PREGATE_ASSIGN_OR_RETURN(prefetcher_,
                           Prefetcher::Create(Shape(),
                                              {.mode = DefaultMode(flags, options_.model),
                                               .lookahead = flags.speculation_lookahead,
                                               .aggressiveness = flags.speculation_aggressiveness,
                                               .confidence = flags.speculation_confidence},
                                              *hints_,
                                              clock_));
  if (flags.speculation_state.empty()) return absl::OkStatus();
  absl::StatusOr<LearnedModes> learned =
      ReadSpeculationState(flags.speculation_state, options_.model.name, Shape());
  if (absl::IsNotFound(learned.status())) return absl::OkStatus();
  if (!learned.ok()) return learned.status();
  return prefetcher_->LoadState(*std::move(learned));
}

ExpertOffload::Parts::~Parts() {
  {
    MutexLock lock(watch_mutex_);
    is_closing_ = true;
    watch_ends_.NotifyAll();
  }
  watch_.reset();
  const ExpertOptions& flags = options_.flags;
  const auto report = [this](const absl::Status& status) {
    if (!status.ok()) logger_.Error("what was learned is lost", {{"error", status.message()}});
  };
  if (prefetcher_ != nullptr && !flags.speculation_state.empty()) {
    report(WriteSpeculationState(
        flags.speculation_state, options_.model.name, Shape(), prefetcher_->SaveState()));
  }
  if (!flags.record_routing.empty()) {
    report(WriteRoutingTrace(flags.record_routing, recorder_.Read()));
  }
}

absl::Status ExpertOffload::Parts::Apply(SlotPlan plan) {
  // Growing can fail and comes first; the rest cannot.
  if (!plan.is_unified) PREGATE_RETURN_IF_ERROR(cache_->SetNumSlots(plan.num_slots));
  cache_->SetDropAfterUse(plan.drop_after_use);
  cache_->SetMaxHintedLoads(plan.max_hinted_loads);
  cache_->SetUnified(plan.is_unified);
  if (plan.strategy != plan_.strategy || plan.num_slots != plan_.num_slots) {
    logger_.Info("expert cache changed",
                 {{"memory_strategy", plan.strategy}, {"slots", plan.num_slots}});
  }
  plan_ = std::move(plan);
  return absl::OkStatus();
}

void ExpertOffload::Parts::WatchMemory() {
  for (;;) {
    const TimePoint next = std::chrono::steady_clock::now() + options_.memory_period;
    {
      MutexLock lock(watch_mutex_);
      while (!is_closing_ && std::chrono::steady_clock::now() < next) {
        watch_ends_.WaitUntil(watch_mutex_, next);
      }
      if (is_closing_) return;
    }
    CheckMemory();
  }
}

void ExpertOffload::Parts::CheckMemory() {
  MutexLock lock(mutex_);
  if (plan_.is_unified) return;  // it holds no slots
  const MemoryInfo memory = backend_->memory();
  const std::optional<uint64_t> budget =
      budget_.Update({.total_bytes = memory.total_bytes,
                      .free_bytes = memory.free_bytes,
                      .held_bytes = plan_.num_slots * needs_.slot_bytes,
                      .budget_bytes = needs_.budget_bytes});
  if (!budget.has_value()) return;
  SlotNeeds needs = needs_;
  needs.budget_bytes = *budget;
  // What was asked for is not refused for this, but served as far as it fits.
  std::string capacity = capacity_;
  const absl::StatusOr<uint32_t> asked = ParseSlotCount(capacity, needs);
  if (asked.ok()) {
    capacity = absl::StrCat(std::min<uint64_t>(*asked, *budget / needs.slot_bytes));
  }
  logger_.Info(*budget < needs_.budget_bytes
                   ? "device memory runs short: the expert cache gives way"
                   : "device memory is free again: the expert cache grows",
               {{"free", FormatBytes(memory.free_bytes)},
                {"of", FormatBytes(memory.total_bytes)},
                {"for_experts", FormatBytes(*budget)}});
  absl::StatusOr<SlotPlan> plan = PlanSlots(strategy_, capacity, needs);
  absl::Status status = plan.status();
  if (plan.ok()) status = Apply(*std::move(plan));
  if (status.ok()) {
    needs_ = needs;
  } else {
    logger_.Warning("the expert cache stays as it is", {{"error", status.message()}});
  }
}

absl::Status ExpertOffload::Parts::SetCapacity(absl::string_view capacity) {
  MutexLock lock(mutex_);
  const std::string strategy = plan_.is_unified ? "single_async" : plan_.strategy;
  PREGATE_ASSIGN_OR_RETURN(SlotPlan plan, PlanSlots(strategy, capacity, needs_));
  PREGATE_RETURN_IF_ERROR(Apply(std::move(plan)));
  if (strategy_ != "auto") strategy_ = strategy;
  capacity_ = std::string(capacity);
  return absl::OkStatus();
}

absl::Status ExpertOffload::Parts::SetMemoryStrategy(absl::string_view strategy) {
  MutexLock lock(mutex_);
  // A capacity is for the strategy that keeps experts; the others know how many slots they want.
  const absl::string_view capacity =
      strategy == "auto" || strategy == "single_async" ? absl::string_view(capacity_) : "";
  PREGATE_ASSIGN_OR_RETURN(SlotPlan plan, PlanSlots(strategy, capacity, needs_));
  PREGATE_RETURN_IF_ERROR(Apply(std::move(plan)));
  strategy_ = std::string(strategy);
  return absl::OkStatus();
}

absl::Status ExpertOffload::Parts::SetEviction(absl::string_view name) {
  MutexLock lock(mutex_);
  PREGATE_RETURN_IF_ERROR(cache_->SetEviction(name));
  eviction_ = std::string(name);
  return absl::OkStatus();
}

void ExpertOffload::Parts::UseEviction(std::unique_ptr<EvictionPolicy> policy) {
  MutexLock lock(mutex_);
  eviction_ = std::string(policy->name());
  cache_->SetEviction(std::move(policy));
}

absl::Status ExpertOffload::Parts::SetSpeculation(const SpeculationChange& change) {
  MutexLock lock(mutex_);
  Prefetcher::Settings settings = prefetcher_->Read().settings;
  if (change.mode.has_value()) settings.mode = *change.mode;
  if (change.lookahead.has_value()) settings.lookahead = *change.lookahead;
  if (change.aggressiveness.has_value()) settings.aggressiveness = *change.aggressiveness;
  if (change.confidence.has_value()) settings.confidence = *change.confidence;
  return prefetcher_->Set(settings);
}

ExpertOffload::State ExpertOffload::Parts::Read() const {
  const Prefetcher::Snapshot prefetcher = prefetcher_->Read();
  State state;
  state.model = options_.model;
  state.codec = codecs_.size() > 1 ? "adaptive" : codecs_.front();
  state.load_codec = codecs_[load_tier_];
  state.cache = cache_->Read();
  state.layers_seconds = layers_seconds_.value();
  state.speculation = {.mode = prefetcher.settings.mode,
                       .lookahead = prefetcher.settings.lookahead,
                       .aggressiveness = prefetcher.settings.aggressiveness,
                       .confidence = prefetcher.settings.confidence,
                       .predicted = prefetcher.predicted,
                       .correct = prefetcher.correct};
  MutexLock lock(mutex_);
  state.memory_strategy = plan_.strategy;
  state.eviction = eviction_;
  state.is_unified = plan_.is_unified;
  return state;
}

bool ExpertOffload::Parts::IsToBeVerified() {
  to_verify_ += options_.flags.verify_slots;
  if (to_verify_ < 1) return false;
  to_verify_ -= 1;
  return true;
}

absl::Status ExpertOffload::Parts::Verify(const ExpertId& id,
                                          const ExpertLease::Expert& expert,
                                          Stream& consumer) {
  std::promise<absl::StatusOr<HostRecord>> fetched;
  tiers_[expert.encoding]->Fetch(
      id, /*is_urgent=*/true, [&fetched](absl::StatusOr<HostRecord> record) {
        fetched.set_value(std::move(record));
      });
  PREGATE_ASSIGN_OR_RETURN(const HostRecord record, fetched.get_future().get());
  // The host may not be able to read a slot.
  std::vector<std::byte> slot(record.bytes().size());
  consumer.CopyAsync(slot.data(), expert.record, slot.size());
  PREGATE_RETURN_IF_ERROR(consumer.Synchronize());
  if (std::equal(slot.begin(), slot.end(), record.bytes().begin())) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(
      "expert ", ToString(id), ": its slot does not hold the bytes that were copied into it"));
}

void ExpertOffload::Parts::VisitStats(StatsVisitor& visitor) const {
  cache_->VisitStats(visitor);
  // Of two encodings the exact one is told: series may not come twice.
  tiers_.front()->VisitStats(visitor);
  prefetcher_->VisitStats(visitor);
  visitor.OnCounter("expert_reduced_precision_tokens_total",
                    "Tokens that went through an expert in the smaller encoding of the codec "
                    "adaptive.",
                    {},
                    reduced_precision_tokens_.value());
  for (size_t tier = 0; tier < codecs_.size(); ++tier) {
    visitor.OnCounter("expert_load_codec_changes_total",
                      "Times that the codec adaptive began to load experts in this encoding.",
                      {{"codec", codecs_[tier]}},
                      switches_[tier].value());
  }
  if (options_.flags.layer_metrics) VisitLayers(visitor);
}

void ExpertOffload::Parts::VisitLayers(StatsVisitor& visitor) const {
  const ExpertCache::Snapshot snapshot = cache_->Read();
  const auto lookups = [&](absl::string_view name, absl::string_view help, Lookup kind) {
    for (size_t layer = 0; layer < snapshot.layer_lookups.size(); ++layer) {
      visitor.OnCounter(
          name,
          help,
          {{"layer", absl::StrCat(layer)}},
          static_cast<double>(snapshot.layer_lookups[layer][static_cast<size_t>(kind)]));
    }
  };
  lookups("expert_layer_hits_total",
          "Look-ups of a layer that found the expert ready (--layer-metrics).",
          Lookup::kHit);
  lookups("expert_layer_late_hits_total",
          "Look-ups of a layer that found the expert on its way (--layer-metrics).",
          Lookup::kLateHit);
  lookups("expert_layer_misses_total",
          "Look-ups of a layer that found no expert (--layer-metrics).",
          Lookup::kMiss);
  for (uint32_t layer = 0; layer < options_.model.num_layers; ++layer) {
    visitor.OnGauge("speculation_enabled",
                    "Whether a layer's experts are predicted at present (--layer-metrics).",
                    {{"layer", absl::StrCat(layer)}},
                    prefetcher_->IsEnabled(layer) ? 1 : 0);
  }
}

absl::StatusOr<std::unique_ptr<ExpertOffload>> ExpertOffload::Create(
    Options options,
    std::vector<ExpertPack> packs,
    std::unique_ptr<Backend> backend,
    const Clock& clock,
    const Logger& logger) {
  auto parts = std::make_unique<Parts>(std::move(options), std::move(backend), clock, logger);
  PREGATE_RETURN_IF_ERROR(parts->Open(std::move(packs)));
  return std::unique_ptr<ExpertOffload>(new ExpertOffload(std::move(parts)));
}

ExpertOffload::ExpertOffload(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
ExpertOffload::~ExpertOffload() = default;

void ExpertOffload::BeginStep() { parts_->BeginStep(); }

void ExpertOffload::EndStep(uint64_t reduced_precision_tokens) {
  parts_->EndStep(reduced_precision_tokens);
}

void ExpertOffload::OnRouted(const RoutedLayer& routed) { parts_->prefetcher().OnRouted(routed); }

absl::StatusOr<ExpertLease> ExpertOffload::Acquire(absl::Span<const ExpertId> ids,
                                                   Stream& consumer) {
  return parts_->cache().Acquire(ids, consumer);
}

absl::Status ExpertOffload::Verify(const ExpertId& id,
                                   const ExpertLease::Expert& expert,
                                   Stream& consumer) {
  return parts_->IsToBeVerified() ? parts_->Verify(id, expert, consumer) : absl::OkStatus();
}

void ExpertOffload::RecordRouting(uint64_t sequence,
                                  bool is_prompt,
                                  absl::Span<const uint32_t> expert_ids) {
  parts_->recorder().Record(sequence, is_prompt, expert_ids);
}

ExpertOffload::State ExpertOffload::Read() const { return parts_->Read(); }

absl::Status ExpertOffload::SetCapacity(absl::string_view capacity) {
  return parts_->SetCapacity(capacity);
}

void ExpertOffload::Reset() { parts_->cache().Reset(); }

absl::Status ExpertOffload::SetSpeculation(const SpeculationChange& change) {
  return parts_->SetSpeculation(change);
}

absl::Status ExpertOffload::SetMemoryStrategy(absl::string_view strategy) {
  return parts_->SetMemoryStrategy(strategy);
}

absl::Status ExpertOffload::SetEviction(absl::string_view name) {
  return parts_->SetEviction(name);
}

void ExpertOffload::CheckMemory() { parts_->CheckMemory(); }

void ExpertOffload::UsePredictor(std::unique_ptr<ExpertPredictor> predictor) {
  parts_->prefetcher().UsePredictor(std::move(predictor));
}

void ExpertOffload::UseEviction(std::unique_ptr<EvictionPolicy> policy) {
  parts_->UseEviction(std::move(policy));
}

absl::StatusOr<DeviceProfile> ExpertOffload::MeasureDevice(ProfiledModel& model,
                                                           const OnProfileStep& on_step) {
  return parts_->MeasureDevice(model, on_step);
}

RoutingTrace ExpertOffload::ReadRoutingTrace() const { return parts_->recorder().Read(); }

void ExpertOffload::VisitStats(StatsVisitor& visitor) const { parts_->VisitStats(visitor); }

}  // namespace pregate
