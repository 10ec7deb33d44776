#include <algorithm>
#include <array>
#include <numeric>
#include <vector>

#include "core/base/status_macros.h"
#include "core/expert/prediction_list.h"
#include "core/expert/predictor_state.h"
#include "core/expert/predictors.h"
#include "core/expert/token_history.h"

namespace pregate {
namespace {

constexpr float kWeight = 0.02F;         // of the newest token in what a rank is worth
constexpr float kMostProbable = 1.001F;  // averages of 0 and 1, rounded
constexpr uint32_t kMaxTokens = 32;      // of a step that are ranked

// Asks the gate of a layer to come before its time, with the residual as it is. What a gate says is
// a share of the mixture, not a probability of being chosen, so only the order counts: a rank's
// probability is how often the expert of that rank was chosen lately, in that layer.
class GateLookaheadPredictor final : public ExpertPredictor {
 public:
  explicit GateLookaheadPredictor(const PredictorShape& shape)
      : shape_(shape),
        num_ranks_(std::min(shape.num_experts, 4 * shape.experts_per_token)),
        history_(shape),
        step_(shape.num_experts),
        order_(shape.num_experts) {
    for (Ahead& ahead : ahead_) ahead.worth = PriorWorth();
  }

  absl::string_view name() const override { return "gate_lookahead"; }

  void Observe(const RoutedLayer& routed) override {
    const bool begins_step = routed.layer <= history_.layer();
    history_.Observe(routed);
    gates_ = routed.gates;
    for (uint32_t distance = 1; distance <= kMaxPredictionDistance; ++distance) {
      Ahead& ahead = ahead_[distance - 1];
      // The rows are the same only if the layers in between were seen.
      if (begins_step) ahead.is_open = false;  // its layer was left out
      if (ahead.is_open && ahead.layer == routed.layer && !history_.Experts(distance, 0).empty()) {
        Learn(ahead);
      }
      if (ahead.layer <= routed.layer) ahead.is_open = false;
    }
  }

  void Predict(uint32_t distance, std::vector<ExpertPrediction>& predictions) override {
    predictions.clear();
    if (distance == 0 || distance > kMaxPredictionDistance || gates_ == nullptr ||
        history_.num_tokens() == 0 || history_.layer() + distance >= shape_.num_layers) {
      return;
    }
    scores_.resize(size_t{history_.num_tokens()} * shape_.num_experts);
    if (!gates_->Score(distance, absl::MakeSpan(scores_))) return;
    Ahead& ahead = ahead_[distance - 1];
    ahead.is_open = true;
    ahead.layer = history_.layer() + distance;
    const RowSample rows(history_.num_tokens(), kMaxTokens);
    ahead.ranked.resize(size_t{rows.size()} * num_ranks_);
    const float* worth = &ahead.worth[size_t{ahead.layer} * num_ranks_];
    for (uint32_t i = 0; i < rows.size(); ++i) {
      uint32_t* ranked = &ahead.ranked[size_t{i} * num_ranks_];
      Rank(&scores_[size_t{rows[i]} * shape_.num_experts], ranked);
      for (uint32_t rank = 0; rank < num_ranks_; ++rank) step_.Add(ranked[rank], worth[rank]);
    }
    step_.Take(rows.rows_each(), predictions);
  }

  std::string SaveState() const override {
    StateWriter writer(name(), shape_);
    for (const Ahead& ahead : ahead_) writer.Table(ahead.worth);
    return writer.Take();
  }

  absl::Status LoadState(absl::string_view state) override {
    StateReader reader(name(), state);
    PREGATE_RETURN_IF_ERROR(reader.Begin(shape_));
    std::array<std::vector<float>, kMaxPredictionDistance> worth;
    for (std::vector<float>& table : worth) {
      table.resize(ahead_[0].worth.size());
      PREGATE_RETURN_IF_ERROR(reader.Table(0, kMostProbable, table));
    }
    PREGATE_RETURN_IF_ERROR(reader.End());
    for (size_t i = 0; i < worth.size(); ++i) ahead_[i].worth = std::move(worth[i]);
    return absl::OkStatus();
  }

 private:
  struct Ahead {
    bool is_open = false;          // predicted, and the layer has not come yet
    uint32_t layer = 0;            // that was predicted
    std::vector<uint32_t> ranked;  // [sampled rows, num_ranks_]: experts, best first
    std::vector<float> worth;      // [num_layers, num_ranks_]: probability of being chosen
  };

  // Mostly right until learned otherwise.
  std::vector<float> PriorWorth() const {
    std::vector<float> worth(size_t{shape_.num_layers} * num_ranks_);
    for (size_t i = 0; i < worth.size(); ++i) {
      worth[i] = i % num_ranks_ < shape_.experts_per_token ? 0.8F : 0.1F;
    }
    return worth;
  }

  void Rank(const float* scores, uint32_t* ranked) {
    std::iota(order_.begin(), order_.end(), 0);
    std::partial_sort_copy(order_.begin(),
                           order_.end(),
                           ranked,
                           ranked + num_ranks_,
                           [scores](uint32_t a, uint32_t b) {
                             return scores[a] != scores[b] ? scores[a] > scores[b] : a < b;
                           });
  }

  void Learn(Ahead& ahead) {
    const RowSample rows(history_.num_tokens(), kMaxTokens);
    float* worth = &ahead.worth[size_t{ahead.layer} * num_ranks_];
    for (uint32_t i = 0; i < rows.size(); ++i) {
      const absl::Span<const uint16_t> chosen = history_.Experts(0, rows[i]);
      for (uint32_t rank = 0; rank < num_ranks_; ++rank) {
        const uint32_t expert = ahead.ranked[size_t{i} * num_ranks_ + rank];
        const bool was_chosen = std::find(chosen.begin(), chosen.end(), expert) != chosen.end();
        worth[rank] += kWeight * ((was_chosen ? 1.0F : 0.0F) - worth[rank]);
      }
    }
  }

  const PredictorShape shape_;
  const uint32_t num_ranks_;
  TokenHistory history_;
  StepProbabilities step_;
  std::vector<uint32_t> order_;  // [num_experts]
  std::vector<float> scores_;    // [num_tokens, num_experts]
  GateLookahead* gates_ = nullptr;
  std::array<Ahead, kMaxPredictionDistance> ahead_;  // by distance - 1
};

}  // namespace

std::unique_ptr<ExpertPredictor> MakeGateLookaheadPredictor(const PredictorShape& shape) {
  return std::make_unique<GateLookaheadPredictor>(shape);
}

}  // namespace pregate
