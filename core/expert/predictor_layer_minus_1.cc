#include <algorithm>
#include <array>
#include <vector>

#include "core/base/status_macros.h"
#include "core/expert/prediction_list.h"
#include "core/expert/predictor_state.h"
#include "core/expert/predictors.h"
#include "core/expert/token_history.h"

namespace pregate {
namespace {

constexpr float kWeight = 0.1F;  // of the newest token in a table's row: docs/speculation.md
constexpr float kMostProbable = 1.001F;  // averages of 0 and 1, rounded
constexpr uint32_t kMaxPredicted = 32;   // tokens of a step
constexpr uint32_t kMaxLearned = 8;      // of a step

// P(e' | e): the probability that a token goes to expert e' of a layer, given that it went to e of
// the layer `distance` before. Each is an exponentially weighted average of what followed e; a
// token's p(e') is the mean over its experts. num_layers · num_experts² · 4 bytes for each distance
// that was ever asked for.
class LayerMinus1Predictor final : public ExpertPredictor {
 public:
  explicit LayerMinus1Predictor(const PredictorShape& shape)
      : shape_(shape), history_(shape), step_(shape.num_experts), mean_(shape.num_experts) {
    MakeTable(1);
  }

  absl::string_view name() const override { return "layer_minus_1"; }

  void Observe(const RoutedLayer& routed) override {
    history_.Observe(routed);
    const RowSample rows(routed.num_tokens, kMaxLearned);
    for (uint32_t distance = 1; distance <= kMaxPredictionDistance; ++distance) {
      if (tables_[distance - 1].empty()) continue;
      for (uint32_t i = 0; i < rows.size(); ++i) {
        for (const uint32_t from : history_.Experts(distance, rows[i])) {
          Learn(Row(distance, from), history_.Experts(0, rows[i]));
        }
      }
    }
  }

  void Predict(uint32_t distance, std::vector<ExpertPrediction>& predictions) override {
    predictions.clear();
    if (distance == 0 || distance > kMaxPredictionDistance ||
        history_.layer() + distance >= shape_.num_layers) {
      return;
    }
    if (tables_[distance - 1].empty()) MakeTable(distance);
    const RowSample rows(history_.num_tokens(), kMaxPredicted);
    for (uint32_t i = 0; i < rows.size(); ++i) {
      std::fill(mean_.begin(), mean_.end(), 0.0F);
      for (const uint32_t from : history_.Experts(0, rows[i])) {
        const absl::Span<const float> row = RowAhead(distance, from);
        for (size_t e = 0; e < mean_.size(); ++e) mean_[e] += row[e];
      }
      for (float& p : mean_) p /= static_cast<float>(shape_.experts_per_token);
      step_.Add(mean_);
    }
    step_.Take(rows.rows_each(), predictions);
  }

  std::string SaveState() const override {
    StateWriter writer(name(), shape_);
    for (const std::vector<float>& table : tables_) {
      const float is_there = table.empty() ? 0 : 1;
      writer.Table({&is_there, 1});
      writer.Table(table);
    }
    return writer.Take();
  }

  absl::Status LoadState(absl::string_view state) override {
    StateReader reader(name(), state);
    PREGATE_RETURN_IF_ERROR(reader.Begin(shape_));
    std::array<std::vector<float>, kMaxPredictionDistance> tables;
    for (std::vector<float>& table : tables) {
      std::vector<float> is_there(1);
      PREGATE_RETURN_IF_ERROR(reader.Table(0, 1, is_there));
      if (is_there[0] == 1) table.resize(TableSize());
      PREGATE_RETURN_IF_ERROR(reader.Table(0, kMostProbable, table));
    }
    PREGATE_RETURN_IF_ERROR(reader.End());
    tables_ = std::move(tables);
    if (tables_[0].empty()) MakeTable(1);
    return absl::OkStatus();
  }

 private:
  size_t TableSize() const {
    return size_t{shape_.num_layers} * shape_.num_experts * shape_.num_experts;
  }
  void MakeTable(uint32_t distance) {
    const float even =
        static_cast<float>(shape_.experts_per_token) / static_cast<float>(shape_.num_experts);
    tables_[distance - 1].assign(TableSize(), even);
  }
  // What follows expert `from` of the layer `distance` before `layer`.
  absl::Span<float> RowOf(uint32_t distance, uint32_t layer, uint32_t from) {
    const size_t row = size_t{layer} * shape_.num_experts + from;
    return {&tables_[distance - 1][row * shape_.num_experts], shape_.num_experts};
  }
  absl::Span<float> Row(uint32_t distance, uint32_t from) {
    return RowOf(distance, history_.layer(), from);
  }
  absl::Span<const float> RowAhead(uint32_t distance, uint32_t from) {
    return RowOf(distance, history_.layer() + distance, from);
  }
  static void Learn(absl::Span<float> row, absl::Span<const uint16_t> followed) {
    for (float& p : row) p *= 1 - kWeight;
    for (const uint32_t expert : followed) row[expert] += kWeight;
  }

  const PredictorShape shape_;
  TokenHistory history_;
  StepProbabilities step_;
  std::vector<float> mean_;  // [num_experts]
  // By distance - 1: [num_layers, num_experts from, num_experts], or empty.
  std::array<std::vector<float>, kMaxPredictionDistance> tables_;
};

}  // namespace

std::unique_ptr<ExpertPredictor> MakeLayerMinus1Predictor(const PredictorShape& shape) {
  return std::make_unique<LayerMinus1Predictor>(shape);
}

}  // namespace pregate
