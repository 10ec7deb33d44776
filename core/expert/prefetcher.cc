#include "core/expert/prefetcher.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "core/base/check.h"
#include "core/base/mutex.h"
#include "core/base/status_macros.h"
#include "core/expert/prediction_list.h"
#include "core/expert/predictors.h"
#include "core/expert/step_clock.h"

namespace pregate {
namespace {

using HintedBytes = ExpertCache::HintedBytes;

constexpr uint64_t kQuietSteps = 64;  // without a load, until it rests
constexpr uint64_t kCheckEvery = 64;  // steps at rest
constexpr double kTimeWeight = 0.1;   // of the newest layer in the average of their times
constexpr double kVainWeight = 0.05;  // of the newest layer in the share of what came to nothing

// What an operator asked for and the engine's thread has yet to take.
struct Change {
  Prefetcher::Settings settings;
  bool has_predictor = false;  // else the one at work goes on
  std::unique_ptr<ExpertPredictor> predictor;
  size_t mode = 0;
};

absl::Status CheckSettings(const Prefetcher::Settings& settings) {
  if (settings.lookahead < 1 || settings.lookahead > kMaxPredictionDistance) {
    return absl::InvalidArgumentError(absl::StrCat("speculation_lookahead: ",
                                                   settings.lookahead,
                                                   " is not between 1 and ",
                                                   kMaxPredictionDistance));
  }
  // Written so that what is no number fails.
  if (!(settings.aggressiveness >= 0 && settings.aggressiveness <= 1)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "speculation_aggressiveness: ", settings.aggressiveness, " is not between 0 and 1"));
  }
  if (!(settings.confidence >= 0 && settings.confidence <= 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("speculation_confidence: ", settings.confidence, " is not between 0 and 1"));
  }
  return absl::OkStatus();
}

uint64_t Issued(const HintedBytes& bytes) {
  return bytes.useful + bytes.late + bytes.wasted + bytes.cancelled + bytes.pending;
}

// The least probability that has paid lately, by what became of the hinted bytes. Every 64 steps:
// up by 0.1 when less than half of them were of use, down by 0.05 when more than 0.7 were, or when
// there was nothing to judge by, so that what was given up is tried again.
class PayingProbability {
 public:
  double least() const { return least_; }

  void OnStep(const HintedBytes& hinted) {
    if (++steps_ % kSteps != 0) return;
    const auto useful = static_cast<double>(hinted.useful - last_.useful);
    const auto late = static_cast<double>(hinted.late - last_.late);
    const auto wasted = static_cast<double>(hinted.wasted - last_.wasted);
    last_ = hinted;
    const double settled = useful + late + wasted;
    // What comes late has saved about half of the wait.
    const double share = settled == 0 ? 1 : (useful + late / 2) / settled;
    if (share < 0.5) least_ = std::min(least_ + 0.1, 0.9);
    if (share > 0.7) least_ = std::max(least_ - 0.05, 0.0);
  }

 private:
  static constexpr uint64_t kSteps = 64;

  double least_ = 0.1;
  uint64_t steps_ = 0;
  HintedBytes last_;
};

}  // namespace

class Prefetcher::Parts {
 public:
  Parts(const PredictorShape& shape, HintSink& sink, const Clock& clock)
      : shape_(shape),
        names_(PredictorNames()),
        counts_(names_.size() + 1),
        sink_(sink),
        clock_(clock),
        is_enabled_(shape.num_layers),
        hinted_(size_t{shape.num_layers} * shape.num_experts),
        is_needed_(shape.num_experts) {}

  absl::Status Set(const Settings& settings);
  void UsePredictor(std::unique_ptr<ExpertPredictor> predictor);
  void OnRouted(const RoutedLayer& routed);
  LearnedModes SaveState() const;
  absl::Status LoadState(LearnedModes modes);
  Snapshot Read() const;
  bool IsEnabled(uint32_t layer) const { return is_enabled_[layer].load() != 0; }
  void VisitStats(StatsVisitor& visitor) const;

 private:
  struct ModeCounts {
    Counter predicted;
    Counter correct;
  };

  size_t ModeNumber(absl::string_view mode) const {
    return static_cast<size_t>(std::find(names_.begin(), names_.end(), mode) - names_.begin());
  }
  bool is_control() const { return mode_ == names_.size(); }

  void TakeChange();
  bool Rests(const ExpertCache::Pace& pace);
  void Score(const RoutedLayer& routed);
  void MeasureLayer(const RoutedLayer& routed, const ExpertCache::Pace& pace);
  void CollectHints(const RoutedLayer& routed);

  const PredictorShape shape_;
  const std::vector<std::string> names_;
  std::vector<ModeCounts> counts_;  // by mode, the last for what is none
  HintSink& sink_;
  const Clock& clock_;

  mutable Mutex mutex_;
  Settings wanted_ ABSL_GUARDED_BY(mutex_);
  bool wants_control_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<Change> change_ ABSL_GUARDED_BY(mutex_);
  std::atomic<bool> has_change_{false};
  std::vector<std::atomic<uint8_t>> is_enabled_;  // [num_layers]

  // The engine's thread alone.
  Settings settings_;
  size_t mode_ = 0;  // of names_
  bool is_adaptive_ = false;
  std::unique_ptr<ExpertPredictor> predictor_;  // null: "none"
  LearnedModes learned_;                        // of modes that are not at work
  StepClock steps_;
  bool rests_ = false;
  uint64_t quiet_steps_ = 0;
  uint64_t loaded_bytes_ = 0;  // when the last step began
  PayingProbability paying_;
  std::optional<TimePoint> layer_begun_;      // that was routed before, in the same step
  double stall_seconds_ = 0;                  // at that time
  std::array<double, 2> layer_seconds_ = {};  // averages: [is_prefill]; 0: not known
  double credit_ = 0;                         // loads in vain that may begin
  double in_vain_ = 1;                        // of the predictions acted on: an average
  std::vector<uint8_t> hinted_;               // [num_layers, num_experts], of this step
  std::vector<uint8_t> is_needed_;            // [num_experts]
  std::vector<ExpertPrediction> predictions_;
  std::vector<ExpertHint> hints_;
};

absl::Status Prefetcher::Parts::Set(const Settings& settings) {
  PREGATE_RETURN_IF_ERROR(CheckSettings(settings));
  PREGATE_ASSIGN_OR_RETURN(std::unique_ptr<ExpertPredictor> predictor,
                           MakePredictor(settings.mode, shape_));
  MutexLock lock(mutex_);
  if (!change_.has_value()) change_.emplace();
  if (settings.mode != wanted_.mode || wants_control_) {
    std::swap(change_->predictor, predictor);
    change_->has_predictor = true;
    change_->mode = ModeNumber(settings.mode);
  }
  change_->settings = settings;
  wanted_ = settings;
  wants_control_ = false;
  has_change_ = true;
  return absl::OkStatus();
}

void Prefetcher::Parts::UsePredictor(std::unique_ptr<ExpertPredictor> predictor) {
  PREGATE_CHECK(predictor != nullptr);
  MutexLock lock(mutex_);
  if (!change_.has_value()) change_.emplace();
  change_->settings = wanted_;
  change_->has_predictor = true;
  change_->mode = names_.size();
  std::swap(change_->predictor, predictor);
  wants_control_ = true;
  has_change_ = true;
}

void Prefetcher::Parts::TakeChange() {
  if (!has_change_) return;
  std::optional<Change> change;
  {
    MutexLock lock(mutex_);
    std::swap(change, change_);
    has_change_ = false;
  }
  settings_ = std::move(change->settings);
  if (!change->has_predictor) return;
  if (predictor_ != nullptr) {
    if (!is_control()) learned_[names_[mode_]] = predictor_->SaveState();
    sink_.Hint({}, 0);  // calls off what was expected
  }
  predictor_ = std::move(change->predictor);
  mode_ = change->mode;
  is_adaptive_ = !is_control() && names_[mode_] == "adaptive";
  quiet_steps_ = 0;
  rests_ = false;
  in_vain_ = 1;  // until it has proven itself
  if (predictor_ == nullptr || is_control()) return;
  if (const auto state = learned_.find(names_[mode_]); state != learned_.end()) {
    // Saved by the same mode for the same shape, or looked at by LoadState.
    PREGATE_CHECK(predictor_->LoadState(state->second).ok());
    learned_.erase(state);
  }
}

void Prefetcher::Parts::OnRouted(const RoutedLayer& routed) {
  const uint64_t last_step = steps_.step();
  steps_.OnLayer(routed.layer);
  const bool begins_step = steps_.step() != last_step;
  if (begins_step) TakeChange();
  if (predictor_ == nullptr || (rests_ && !begins_step)) return;
  const ExpertCache::Pace pace = sink_.ReadPace();
  if (begins_step) {
    layer_begun_.reset();
    std::fill(hinted_.begin(), hinted_.end(), uint8_t{0});
    if (Rests(pace)) return;
    paying_.OnStep(pace.hinted);
  }
  Score(routed);
  MeasureLayer(routed, pace);
  predictor_->Observe(routed);
  hints_.clear();
  CollectHints(routed);
  const double layer_seconds = layer_seconds_[routed.is_prefill ? 1 : 0];
  if (pace.load_seconds > 0) credit_ += layer_seconds / pace.load_seconds;
  // More than there are experts is no limit, and may be more than a number holds.
  const auto most = static_cast<double>(hinted_.size());
  const auto max_loads = static_cast<uint32_t>(std::min(credit_ / std::max(in_vain_, 1e-9), most));
  credit_ = std::min(credit_ - in_vain_ * sink_.Hint(hints_, max_loads), 1.0);
}

bool Prefetcher::Parts::Rests(const ExpertCache::Pace& pace) {
  const uint64_t loaded_bytes = pace.demanded_bytes + Issued(pace.hinted);
  quiet_steps_ = loaded_bytes == loaded_bytes_ ? quiet_steps_ + 1 : 0;
  loaded_bytes_ = loaded_bytes;
  // A control may count on seeing every step.
  rests_ = quiet_steps_ >= kQuietSteps && steps_.step() % kCheckEvery != 0 && !is_control();
  return rests_;
}

void Prefetcher::Parts::Score(const RoutedLayer& routed) {
  uint8_t* hinted = &hinted_[size_t{routed.layer} * shape_.num_experts];
  const auto predicted = std::count(hinted, hinted + shape_.num_experts, uint8_t{1});
  if (predicted == 0) return;
  std::fill(is_needed_.begin(), is_needed_.end(), uint8_t{0});
  for (const uint32_t expert : routed.expert_ids) is_needed_[expert] = 1;
  uint32_t correct = 0;
  for (uint32_t expert = 0; expert < shape_.num_experts; ++expert) {
    if (hinted[expert] != 0 && is_needed_[expert] != 0) ++correct;
  }
  counts_[mode_].predicted.Add(static_cast<double>(predicted));
  counts_[mode_].correct.Add(correct);
  in_vain_ += kVainWeight * (1 - correct / static_cast<double>(predicted) - in_vain_);
}

void Prefetcher::Parts::MeasureLayer(const RoutedLayer& routed, const ExpertCache::Pace& pace) {
  const TimePoint now = clock_.Now();
  if (layer_begun_.has_value()) {
    const double stall = pace.stall_seconds - stall_seconds_;
    const double seconds = std::max(0.0, ToSeconds(now - *layer_begun_) - stall);
    double& average = layer_seconds_[routed.is_prefill ? 1 : 0];
    average += (average == 0 ? 1 : kTimeWeight) * (seconds - average);
  }
  layer_begun_ = now;
  stall_seconds_ = pace.stall_seconds;
}

void Prefetcher::Parts::CollectHints(const RoutedLayer& routed) {
  if (settings_.aggressiveness == 0) return;
  double confidence = settings_.confidence;
  if (is_adaptive_) confidence = std::max(confidence, paying_.least());
  for (uint32_t distance = 1; distance <= settings_.lookahead; ++distance) {
    const uint32_t layer = routed.layer + distance;
    if (layer >= shape_.num_layers) return;
    predictor_->Predict(distance, predictions_);
    const size_t count = CountToActOn(predictions_, settings_.aggressiveness, confidence);
    is_enabled_[layer] = count > 0 ? 1 : 0;
    for (size_t i = 0; i < count; ++i) {
      const ExpertPrediction& prediction = predictions_[i];
      hints_.push_back({.id = {.layer = layer, .expert = prediction.expert},
                        .probability = prediction.probability});
      hinted_[size_t{layer} * shape_.num_experts + prediction.expert] = 1;
    }
  }
}

LearnedModes Prefetcher::Parts::SaveState() const {
  LearnedModes modes = learned_;
  if (predictor_ != nullptr && !is_control()) modes[names_[mode_]] = predictor_->SaveState();
  return modes;
}

absl::Status Prefetcher::Parts::LoadState(LearnedModes modes) {
  PREGATE_CHECK(steps_.step() == 0);
  for (const auto& [mode, state] : modes) {
    const absl::StatusOr<std::unique_ptr<ExpertPredictor>> predictor = MakePredictor(mode, shape_);
    // The gates that it was learned with are not there now: kept for when they are.
    if (absl::IsFailedPrecondition(predictor.status())) continue;
    PREGATE_RETURN_IF_ERROR(predictor.status());
    if (*predictor == nullptr) continue;
    PREGATE_RETURN_IF_ERROR((*predictor)->LoadState(state));
  }
  learned_ = std::move(modes);
  return absl::OkStatus();
}

Prefetcher::Snapshot Prefetcher::Parts::Read() const {
  Snapshot snapshot;
  for (const ModeCounts& counts : counts_) {
    snapshot.predicted += static_cast<uint64_t>(counts.predicted.value());
    snapshot.correct += static_cast<uint64_t>(counts.correct.value());
  }
  MutexLock lock(mutex_);
  snapshot.settings = wanted_;
  return snapshot;
}

void Prefetcher::Parts::VisitStats(StatsVisitor& visitor) const {
  for (size_t mode = 0; mode < names_.size(); ++mode) {
    visitor.OnCounter("speculation_predicted_total",
                      "Experts of a step's layers that were predicted and acted on.",
                      {{"mode", names_[mode]}},
                      counts_[mode].predicted.value());
  }
  for (size_t mode = 0; mode < names_.size(); ++mode) {
    visitor.OnCounter("speculation_correct_total",
                      "Predicted experts that the layer then needed.",
                      {{"mode", names_[mode]}},
                      counts_[mode].correct.value());
  }
}

absl::StatusOr<std::unique_ptr<Prefetcher>> Prefetcher::Create(const PredictorShape& shape,
                                                               const Settings& settings,
                                                               HintSink& sink,
                                                               const Clock& clock) {
  auto parts = std::make_unique<Parts>(shape, sink, clock);
  PREGATE_RETURN_IF_ERROR(parts->Set(settings));
  return absl::WrapUnique(new Prefetcher(std::move(parts)));
}

Prefetcher::Prefetcher(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
Prefetcher::~Prefetcher() = default;

void Prefetcher::OnRouted(const RoutedLayer& routed) { parts_->OnRouted(routed); }
LearnedModes Prefetcher::SaveState() const { return parts_->SaveState(); }
absl::Status Prefetcher::LoadState(LearnedModes modes) {
  return parts_->LoadState(std::move(modes));
}
absl::Status Prefetcher::Set(const Settings& settings) { return parts_->Set(settings); }
void Prefetcher::UsePredictor(std::unique_ptr<ExpertPredictor> predictor) {
  parts_->UsePredictor(std::move(predictor));
}
Prefetcher::Snapshot Prefetcher::Read() const { return parts_->Read(); }
bool Prefetcher::IsEnabled(uint32_t layer) const { return parts_->IsEnabled(layer); }
void Prefetcher::VisitStats(StatsVisitor& visitor) const { parts_->VisitStats(visitor); }

}  // namespace pregate
