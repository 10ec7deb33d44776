#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <numeric>
#include <vector>

#include "core/base/status_macros.h"
#include "core/expert/prediction_list.h"
#include "core/expert/predictor_state.h"
#include "core/expert/predictors.h"
#include "core/expert/token_history.h"

namespace pregate {
namespace {

// How much a step changes what is known of a member's skill, and of how repetitive the text is.
constexpr float kWeight = 0.05F;
// A member's share of the mixture is proportional to e^(kSharpness · its rate).
constexpr float kSharpness = 32;
// Members with less than this of the best one's share, and layers that are off, are asked in every
// kRetry-th step only.
constexpr float kLeastShare = 0.05F;
constexpr uint64_t kRetry = 16;
// A layer goes off below the one rate and on again from the other.
constexpr float kOffBelow = 0.25F;
constexpr float kOnFrom = 0.35F;
// Of the experts that the sequences' tokens before chose: from here on text counts as repetitive.
constexpr float kRepetitiveFrom = 0.4F;

// In the order of the state's bytes. The rates are what a member begins with: the order of what is
// known of them (docs/speculation.md).
struct Mode {
  std::unique_ptr<ExpertPredictor> (*make)(const PredictorShape& shape);
  float rate;
};
constexpr Mode kModes[] = {
    {MakeLayerMinus1Predictor, 0.3F},
    {MakeMultiLayerPredictor, 0.4F},
    {MakeGateLookaheadPredictor, 0.8F},
    {MakePregatePredictor, 1.0F},
};
constexpr size_t kNumModes = std::size(kModes);
constexpr size_t kGateMode = 2;
constexpr size_t kPregateMode = 3;
constexpr size_t kMixture = kNumModes;  // its rate is kept like a member's
constexpr float kMixtureRate = 0.5F;

// Kinds of input, for each of which members may have another skill.
constexpr uint32_t kNumInputs = 8;

// A rate is the share of the bytes that a layer needed which a prediction of as many experts would
// have brought in time: |the first n predicted ∩ the n needed| / n, a moving average. The mixture
// is Hedge over the members (Freund & Schapire 1997), with the past forgotten: separate for each
// layer, each distance and each kind of input, which is the phase, the size of the batch and how
// repetitive the text has been.
class AdaptivePredictor final : public ExpertPredictor {
 public:
  explicit AdaptivePredictor(const PredictorShape& shape)
      : shape_(shape),
        history_(shape),
        members_(MakeMembers()),
        mass_(shape.num_experts),
        is_needed_(shape.num_experts) {
    rates_.reserve(NumRates());
    for (size_t cell = 0; cell < NumRates() / (kNumModes + 1); ++cell) {
      for (const Mode& mode : kModes) rates_.push_back(mode.rate);
      rates_.push_back(kMixtureRate);
    }
    is_off_.resize(size_t{kMaxPredictionDistance} * shape.num_layers);
  }

  absl::string_view name() const override { return "adaptive"; }

  void Observe(const RoutedLayer& routed) override {
    const bool begins_step = routed.layer <= history_.layer();
    if (begins_step) ++step_;
    history_.Observe(routed);
    for (const auto& member : members_) {
      if (member != nullptr) member->Observe(routed);
    }
    for (const uint32_t expert : routed.expert_ids) is_needed_[expert] = true;
    const auto num_needed =
        static_cast<size_t>(std::count(is_needed_.begin(), is_needed_.end(), true));
    for (Ahead& ahead : ahead_) {
      if (begins_step) ahead.is_open = false;  // its layer was left out
      if (ahead.is_open && ahead.layer == routed.layer) Score(ahead, num_needed);
      if (ahead.layer <= routed.layer) ahead.is_open = false;
    }
    std::fill(is_needed_.begin(), is_needed_.end(), false);
    ObserveRepetition();
    input_ = InputOf(routed);
  }

  void Predict(uint32_t distance, std::vector<ExpertPrediction>& predictions) override {
    predictions.clear();
    if (distance == 0 || distance > kMaxPredictionDistance || history_.num_tokens() == 0 ||
        history_.layer() + distance >= shape_.num_layers) {
      return;
    }
    Ahead& ahead = ahead_[distance - 1];
    ahead.is_open = false;
    ahead.layer = history_.layer() + distance;
    const bool is_off = is_off_[OffIndex(ahead)] != 0;
    if (is_off && step_ % kRetry != 0) return;

    ahead.rates = RatesOf(distance, ahead.layer);
    AskMembers(distance, ahead);
    Mix(ahead);
    ahead.is_open = !ahead.lists[kMixture].empty();
    if (!is_off) predictions = ahead.lists[kMixture];
  }

  std::string SaveState() const override {
    StateWriter writer(name(), shape_);
    for (const auto& member : members_) {
      writer.Nested(member == nullptr ? std::string() : member->SaveState());
    }
    writer.Table(rates_);
    return writer.Take();
  }

  absl::Status LoadState(absl::string_view state) override {
    StateReader reader(name(), state);
    PREGATE_RETURN_IF_ERROR(reader.Begin(shape_));
    Members members = MakeMembers();
    for (const auto& member : members) {
      absl::string_view learned;
      PREGATE_RETURN_IF_ERROR(reader.Nested(learned));
      // The gates may be there now, or no longer.
      if (member == nullptr || learned.empty()) continue;
      PREGATE_RETURN_IF_ERROR(member->LoadState(learned));
    }
    std::vector<float> rates(NumRates());
    PREGATE_RETURN_IF_ERROR(reader.Table(0, 1, rates));
    PREGATE_RETURN_IF_ERROR(reader.End());
    members_ = std::move(members);
    rates_ = std::move(rates);
    return absl::OkStatus();
  }

 private:
  using Members = std::array<std::unique_ptr<ExpertPredictor>, kNumModes>;

  // A prediction whose layer has not come yet.
  struct Ahead {
    bool is_open = false;
    uint32_t layer = 0;
    size_t rates = 0;                                                // where its rates begin
    std::array<std::vector<ExpertPrediction>, kNumModes + 1> lists;  // empty: was not asked
  };

  Members MakeMembers() const {
    Members members;
    for (size_t i = 0; i < kNumModes; ++i) {
      if (i == kGateMode && !shape_.has_gates) continue;
      if (i == kPregateMode && !shape_.is_pregated) continue;
      members[i] = kModes[i].make(shape_);
    }
    return members;
  }

  size_t NumRates() const {
    return size_t{kMaxPredictionDistance} * shape_.num_layers * kNumInputs * (kNumModes + 1);
  }
  size_t RatesOf(uint32_t distance, uint32_t layer) const {
    const size_t cell = (size_t{distance - 1} * shape_.num_layers + layer) * kNumInputs + input_;
    return cell * (kNumModes + 1);
  }
  size_t OffIndex(const Ahead& ahead) const {
    return static_cast<size_t>(&ahead - ahead_.data()) * shape_.num_layers + ahead.layer;
  }

  uint32_t InputOf(const RoutedLayer& routed) const {
    uint32_t kind = 3;
    if (!routed.is_prefill) kind = routed.num_tokens == 1 ? 0 : (routed.num_tokens <= 8 ? 1 : 2);
    return kind * 2 + (repetition_ >= kRepetitiveFrom ? 1 : 0);
  }

  // What share of the experts did the token before in the sequence choose as well?
  void ObserveRepetition() {
    uint32_t seen = 0;
    uint32_t repeated = 0;
    const RowSample rows(history_.num_tokens(), 8);
    for (uint32_t i = 0; i < rows.size(); ++i) {
      const absl::Span<const uint16_t> before = history_.TokenBefore(0, rows[i]);
      if (before.empty()) continue;
      for (const uint16_t expert : history_.Experts(0, rows[i])) {
        ++seen;
        if (std::find(before.begin(), before.end(), expert) != before.end()) ++repeated;
      }
    }
    if (seen == 0) return;
    const float share = static_cast<float>(repeated) / static_cast<float>(seen);
    repetition_ += kWeight / static_cast<float>(shape_.num_layers) * (share - repetition_);
  }

  // The best first: who is much worse than one that answered is asked now and then.
  void AskMembers(uint32_t distance, Ahead& ahead) {
    std::array<size_t, kNumModes> order;
    std::iota(order.begin(), order.end(), 0);
    for (size_t i = 0; i < kNumModes; ++i) {
      shares_[i] = std::exp(kSharpness * (rates_[ahead.rates + i] - 1));
    }
    std::sort(order.begin(), order.end(), [this](size_t a, size_t b) {
      return shares_[a] != shares_[b] ? shares_[a] > shares_[b] : a < b;
    });
    float best = 0;
    for (const size_t i : order) {
      std::vector<ExpertPrediction>& list = ahead.lists[i];
      list.clear();
      if (members_[i] == nullptr) continue;
      if (shares_[i] < kLeastShare * best && step_ % kRetry != 0) continue;
      members_[i]->Predict(distance, list);
      if (!list.empty()) best = std::max(best, shares_[i]);
    }
  }

  void Mix(Ahead& ahead) {
    float total = 0;
    for (size_t i = 0; i < kNumModes; ++i) {
      if (!ahead.lists[i].empty()) total += shares_[i];
    }
    std::fill(mass_.begin(), mass_.end(), 0.0F);
    for (size_t i = 0; i < kNumModes; ++i) {
      if (ahead.lists[i].empty()) continue;
      const float share = shares_[i] / total;
      for (const ExpertPrediction& prediction : ahead.lists[i]) {
        mass_[prediction.expert] += share * prediction.probability;
      }
    }
    std::vector<ExpertPrediction>& mixture = ahead.lists[kMixture];
    mixture.clear();
    for (uint32_t expert = 0; expert < shape_.num_experts; ++expert) {
      if (mass_[expert] < StepProbabilities::kLeast) continue;
      mixture.push_back({.expert = expert, .probability = std::min(mass_[expert], 1.0F)});
    }
    SortPredictions(mixture);
  }

  void Score(const Ahead& ahead, size_t num_needed) {
    if (num_needed == 0) return;
    for (size_t i = 0; i < ahead.lists.size(); ++i) {
      const std::vector<ExpertPrediction>& list = ahead.lists[i];
      if (list.empty()) continue;
      const size_t first = std::min(num_needed, list.size());
      const auto found = std::count_if(
          list.begin(),
          list.begin() + static_cast<std::ptrdiff_t>(first),
          [this](const ExpertPrediction& prediction) { return is_needed_[prediction.expert]; });
      float& rate = rates_[ahead.rates + i];
      rate += kWeight * (static_cast<float>(found) / static_cast<float>(num_needed) - rate);
    }
    const float rate = rates_[ahead.rates + kMixture];
    uint8_t& is_off = is_off_[OffIndex(ahead)];
    if (rate < kOffBelow) is_off = 1;
    if (rate >= kOnFrom) is_off = 0;
  }

  const PredictorShape shape_;
  TokenHistory history_;
  Members members_;  // null: the model lacks what it needs
  uint64_t step_ = 0;
  uint32_t input_ = 0;           // kind of the present one
  float repetition_ = 0;         // moving average
  std::vector<float> rates_;     // [distance - 1, layer, kind of input, member or the mixture]
  std::vector<uint8_t> is_off_;  // [distance - 1, layer]
  std::array<Ahead, kMaxPredictionDistance> ahead_;  // by distance - 1
  std::array<float, kNumModes> shares_ = {};  // of the mixture at hand, not yet adding up to one
  std::vector<float> mass_;                   // [num_experts]
  std::vector<bool> is_needed_;               // [num_experts]
};

}  // namespace

std::unique_ptr<ExpertPredictor> MakeAdaptivePredictor(const PredictorShape& shape) {
  return std::make_unique<AdaptivePredictor>(shape);
}

}  // namespace pregate
