#include "bench/lookup_cost.h"

#include <algorithm>
#include <array>
#include <memory>
#include <numeric>
#include <optional>
#include <random>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/clock.h"
#include "core/base/status_macros.h"
#include "core/device/cpu_backend.h"
#include "core/expert/expert_cache.h"
#include "core/expert/expert_predictor.h"

namespace pregate {
namespace {

// Records that are there already; what is in them is not looked at.
class ResidentSource final : public RecordSource {
 public:
  ResidentSource(uint32_t num_layers, uint32_t num_experts) {
    header_.num_layers = num_layers;
    header_.num_experts = num_experts;
    header_.record_bytes = record_.size();
  }
  const ExpertPackHeader& header() const override { return header_; }
  void Fetch(ExpertId /*id*/, bool /*is_urgent*/, Done done) override {
    done(HostRecord(record_, /*from_disk=*/false, nullptr));
  }
  void VisitStats(StatsVisitor& /*visitor*/) const override {}

 private:
  const std::array<std::byte, 64> record_ = {};
  ExpertPackHeader header_;
};

// The experts of one token in each layer of each step.
class Routing {
 public:
  explicit Routing(const LookupCostOptions& options) : options_(options) {
    std::mt19937 random(1);
    std::vector<uint32_t> experts(options.num_experts);
    std::iota(experts.begin(), experts.end(), 0);
    for (uint32_t i = 0; i < kSteps * options.num_layers; ++i) {
      std::shuffle(experts.begin(), experts.end(), random);
      experts_.insert(experts_.end(), experts.begin(), experts.begin() + options.top_k);
    }
  }

  // Best first. Steps repeat themselves after a while.
  absl::Span<const uint32_t> experts(uint32_t step, uint32_t layer) const {
    const size_t row = size_t{step % kSteps} * options_.num_layers + layer;
    return absl::MakeConstSpan(experts_).subspan(row * options_.top_k, options_.top_k);
  }

 private:
  static constexpr uint32_t kSteps = 64;
  const LookupCostOptions options_;
  std::vector<uint32_t> experts_;  // [kSteps, num_layers, top_k]
};

// Gates that have been right before they are asked.
class KnownGates final : public GateLookahead {
 public:
  KnownGates(const Routing& routing, const LookupCostOptions& options)
      : routing_(routing), options_(options) {}
  void Set(uint32_t step, uint32_t layer) {
    step_ = step;
    layer_ = layer;
  }
  bool Score(uint32_t distance, absl::Span<float> probabilities) override {
    if (layer_ + distance >= options_.num_layers) return false;
    std::fill(probabilities.begin(), probabilities.end(), 0.0F);
    for (const uint32_t expert : routing_.experts(step_, layer_ + distance)) {
      probabilities[expert] = 1.0F / static_cast<float>(options_.top_k);
    }
    return true;
  }

 private:
  const Routing& routing_;
  const LookupCostOptions options_;
  uint32_t step_ = 0;
  uint32_t layer_ = 0;
};

class Measurer {
 public:
  explicit Measurer(const LookupCostOptions& options)
      : options_(options), routing_(options), source_(options.num_layers, options.num_experts) {}

  // Everything resident.
  absl::Status Open() {
    ExpertCache::Options cache;
    cache.num_slots = options_.num_layers * options_.num_experts;
    cache.eviction = options_.eviction;
    PREGATE_ASSIGN_OR_RETURN(cache_, ExpertCache::Create({&source_}, backend_, clock_, cache));
    std::vector<ExpertId> ids(options_.num_experts);
    for (uint32_t layer = 0; layer < options_.num_layers; ++layer) {
      for (uint32_t i = 0; i < ids.size(); ++i) ids[i] = {.layer = layer, .expert = i};
      PREGATE_ASSIGN_OR_RETURN(ExpertLease lease, cache_->Acquire(ids, stream_));
      while (lease.Next().has_value()) {
      }
    }
    while (cache_->Read().slots.ready < cache.num_slots) std::this_thread::yield();
    return absl::OkStatus();
  }

  // One spread for each way to spend a layer; INTERNAL when not all was resident.
  absl::Status MeasureLookups(LookupCost& cost) {
    const uint64_t misses = cache_->Read().lookups[static_cast<size_t>(Lookup::kMiss)];
    cost.lookup = Measure([this](uint32_t step, uint32_t layer) { LookUp(step, layer); });
    cost.hint = Measure([this](uint32_t step, uint32_t layer) { Hint(step, layer); });
    cost.layer = Measure([this](uint32_t step, uint32_t layer) {
      LookUp(step, layer);
      Hint(step, layer);
    });
    if (cache_->Read().lookups[static_cast<size_t>(Lookup::kMiss)] == misses) {
      return absl::OkStatus();
    }
    return absl::InternalError("not every expert was resident");
  }

  absl::Status MeasurePredictors(std::vector<LookupCost::Prediction>& predictions) {
    const PredictorShape shape = {.num_layers = options_.num_layers,
                                  .num_experts = options_.num_experts,
                                  .experts_per_token = options_.top_k,
                                  .is_pregated = true,
                                  .has_gates = true};
    for (const std::string& mode : PredictorNames()) {
      PREGATE_ASSIGN_OR_RETURN(const std::unique_ptr<ExpertPredictor> predictor,
                               MakePredictor(mode, shape));
      if (predictor == nullptr) continue;
      predictions.push_back({.mode = mode, .cost = MeasurePredictor(*predictor)});
    }
    return absl::OkStatus();
  }

 private:
  // Nanoseconds of `work`(step, layer).
  template <typename Work>
  Spread Measure(const Work& work) {
    std::vector<double> times;
    for (uint32_t i = 0; i <= options_.iterations; ++i) {
      const TimePoint begun = clock_.Now();
      for (uint32_t step = 0; step < options_.num_steps; ++step) {
        for (uint32_t layer = 0; layer < options_.num_layers; ++layer) work(step, layer);
      }
      const double layers = static_cast<double>(options_.num_steps) * options_.num_layers;
      if (i > 0) times.push_back(1e9 * ToSeconds(clock_.Now() - begun) / layers);
    }
    return SpreadOf(std::move(times));
  }

  void LookUp(uint32_t step, uint32_t layer) {
    ids_.clear();
    for (const uint32_t expert : routing_.experts(step, layer)) {
      ids_.push_back({.layer = layer, .expert = expert});
    }
    absl::StatusOr<ExpertLease> lease = cache_->Acquire(ids_, stream_);
    while (lease->Next().has_value()) {
    }
  }

  void Hint(uint32_t step, uint32_t layer) {
    const uint32_t next = (layer + 1) % options_.num_layers;
    hints_.clear();
    for (const uint32_t expert : routing_.experts(step, next)) {
      hints_.push_back({.id = {.layer = next, .expert = expert}, .probability = 0.5F});
    }
    cache_->Hint(hints_);
  }

  Spread MeasurePredictor(ExpertPredictor& predictor) {
    KnownGates gates(routing_, options_);
    const uint64_t sequence = 1;
    std::vector<ExpertPrediction> predictions;
    return Measure([&](uint32_t step, uint32_t layer) {
      gates.Set(step, layer);
      RoutedLayer routed;
      routed.layer = layer;
      routed.num_tokens = 1;
      routed.experts_per_token = options_.top_k;
      routed.expert_ids = routing_.experts(step, layer);
      routed.sequences = absl::MakeConstSpan(&sequence, 1);
      routed.positions = absl::MakeConstSpan(&step, 1);
      if (layer + 1 < options_.num_layers)
        routed.next_expert_ids = routing_.experts(step, layer + 1);
      routed.gates = &gates;
      predictor.Observe(routed);
      predictor.Predict(1, predictions);
    });
  }

  const LookupCostOptions options_;
  const Routing routing_;
  ResidentSource source_;
  CpuBackend backend_;
  const RealClock clock_;
  CallerStream stream_;
  std::unique_ptr<ExpertCache> cache_;
  std::vector<ExpertId> ids_;
  std::vector<ExpertHint> hints_;
};

}  // namespace

absl::StatusOr<LookupCost> MeasureLookupCost(const LookupCostOptions& options) {
  if (options.top_k == 0 || options.top_k > options.num_experts) {
    return absl::InvalidArgumentError(absl::StrCat(
        "top-k: ", options.top_k, " experts of ", options.num_experts, " were asked for"));
  }
  LookupCost cost;
  Measurer measurer(options);
  PREGATE_RETURN_IF_ERROR(measurer.Open());
  PREGATE_RETURN_IF_ERROR(measurer.MeasureLookups(cost));
  PREGATE_RETURN_IF_ERROR(measurer.MeasurePredictors(cost.predictions));
  return cost;
}

}  // namespace pregate
