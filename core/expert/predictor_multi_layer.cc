#include <array>
#include <memory>
#include <vector>

#include "core/base/status_macros.h"
#include "core/expert/prediction_list.h"
#include "core/expert/predictor_state.h"
#include "core/expert/predictors.h"
#include "core/expert/routing_regression.h"
#include "core/expert/token_history.h"

namespace pregate {
namespace {

constexpr uint32_t kMaxPredicted = 32;  // tokens of a step
constexpr uint32_t kMaxLearned = 8;     // of a step: a regression learns slowly but from each

// A regression on four tables: the experts at L, L-1 and L-2, and what the token before in the same
// sequence chose at the layer that is predicted, since text repeats itself.
class MultiLayerPredictor final : public ExpertPredictor {
 public:
  explicit MultiLayerPredictor(const PredictorShape& shape)
      : shape_(shape), history_(shape), step_(shape.num_experts) {
    regressions_[0] = std::make_unique<RoutingRegression>(shape_);
  }

  absl::string_view name() const override { return "multi_layer"; }

  void Observe(const RoutedLayer& routed) override {
    history_.Observe(routed);
    const RowSample rows(routed.num_tokens, kMaxLearned);
    for (uint32_t distance = 1; distance <= kMaxPredictionDistance; ++distance) {
      if (regressions_[distance - 1] == nullptr) continue;
      for (uint32_t i = 0; i < rows.size(); ++i) {
        if (history_.Experts(distance, rows[i]).empty()) break;
        regressions_[distance - 1]->Learn(
            routed.layer, SourcesOf(distance, 0, rows[i]), history_.Experts(0, rows[i]));
      }
    }
  }

  void Predict(uint32_t distance, std::vector<ExpertPrediction>& predictions) override {
    predictions.clear();
    if (distance == 0 || distance > kMaxPredictionDistance ||
        history_.layer() + distance >= shape_.num_layers) {
      return;
    }
    std::unique_ptr<RoutingRegression>& regression = regressions_[distance - 1];
    if (regression == nullptr) regression = std::make_unique<RoutingRegression>(shape_);
    const RowSample rows(history_.num_tokens(), kMaxPredicted);
    for (uint32_t i = 0; i < rows.size(); ++i) {
      step_.Add(regression->Predict(history_.layer() + distance, SourcesOf(0, distance, rows[i])));
    }
    step_.Take(rows.rows_each(), predictions);
  }

  std::string SaveState() const override {
    StateWriter writer(name(), shape_);
    for (const auto& regression : regressions_) {
      const float is_there = regression == nullptr ? 0 : 1;
      writer.Table({&is_there, 1});
      if (regression != nullptr) regression->Save(writer);
    }
    return writer.Take();
  }

  absl::Status LoadState(absl::string_view state) override {
    StateReader reader(name(), state);
    PREGATE_RETURN_IF_ERROR(reader.Begin(shape_));
    std::array<std::unique_ptr<RoutingRegression>, kMaxPredictionDistance> regressions;
    for (std::unique_ptr<RoutingRegression>& regression : regressions) {
      std::vector<float> is_there(1);
      PREGATE_RETURN_IF_ERROR(reader.Table(0, 1, is_there));
      if (is_there[0] != 1) continue;
      regression = std::make_unique<RoutingRegression>(shape_);
      PREGATE_RETURN_IF_ERROR(regression->Load(reader));
    }
    PREGATE_RETURN_IF_ERROR(reader.End());
    regressions_ = std::move(regressions);
    if (regressions_[0] == nullptr) regressions_[0] = std::make_unique<RoutingRegression>(shape_);
    return absl::OkStatus();
  }

 private:
  // Of row `token`: the layers from `back` behind the present one on, and the token before at the
  // layer `ahead` of it.
  RoutingRegression::Sources SourcesOf(uint32_t back, uint32_t ahead, uint32_t token) const {
    return {history_.Experts(back, token),
            history_.Experts(back + 1, token),
            history_.Experts(back + 2, token),
            history_.TokenBefore(ahead, token)};
  }

  const PredictorShape shape_;
  TokenHistory history_;
  StepProbabilities step_;
  // By distance - 1; null until it is asked for.
  std::array<std::unique_ptr<RoutingRegression>, kMaxPredictionDistance> regressions_;
};

}  // namespace

std::unique_ptr<ExpertPredictor> MakeMultiLayerPredictor(const PredictorShape& shape) {
  return std::make_unique<MultiLayerPredictor>(shape);
}

}  // namespace pregate
