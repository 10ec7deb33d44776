// The predictor of docs/extending.md, held to the contract like those of --speculation.
#pragma once

#include <memory>
#include <vector>

#include "core/expert/expert_predictor.h"
#include "core/expert/prediction_list.h"

namespace pregate {

// Expects of each expert what followed it the last time. 4 bytes an expert.
class LastFollowerPredictor final : public ExpertPredictor {
 public:
  explicit LastFollowerPredictor(const PredictorShape& shape)
      : shape_(shape),
        followers_(size_t{shape.num_layers} * shape.num_experts),
        step_(shape.num_experts) {}

  absl::string_view name() const override { return "last_follower"; }

  void Observe(const RoutedLayer& routed) override {
    // Rows are the same in every layer of a step.
    if (routed.layer == layer_ + 1 && routed.expert_ids.size() == last_.size()) {
      for (size_t i = 0; i < last_.size(); ++i) Follower(last_[i]) = routed.expert_ids[i];
    }
    layer_ = routed.layer;
    last_.assign(routed.expert_ids.begin(), routed.expert_ids.end());
  }

  void Predict(uint32_t distance, std::vector<ExpertPrediction>& predictions) override {
    predictions.clear();
    if (distance != 1 || layer_ + 1 >= shape_.num_layers) return;
    for (const uint32_t expert : last_) step_.Add(Follower(expert), 0.5F);
    step_.Take(1, predictions);  // sorted, each expert once
  }

 private:
  uint32_t& Follower(uint32_t expert) { return followers_[layer_ * shape_.num_experts + expert]; }

  const PredictorShape shape_;
  uint32_t layer_ = 0;               // observed last
  std::vector<uint32_t> last_;       // what it chose, row by row
  std::vector<uint32_t> followers_;  // [num_layers, num_experts]: of the next layer
  StepProbabilities step_;
};

inline std::unique_ptr<ExpertPredictor> MakeLastFollowerPredictor(const PredictorShape& shape) {
  return std::make_unique<LastFollowerPredictor>(shape);
}

}  // namespace pregate
