#include <vector>

#include "core/base/check.h"
#include "core/expert/prediction_list.h"
#include "core/expert/predictors.h"

namespace pregate {
namespace {

// The pre-gate's choice is the routing of the next layer: certain, and one layer ahead only.
class PregatePredictor final : public ExpertPredictor {
 public:
  explicit PregatePredictor(const PredictorShape& shape)
      : shape_(shape), step_(shape.num_experts) {}

  absl::string_view name() const override { return "pregate"; }

  void Observe(const RoutedLayer& routed) override {
    PREGATE_CHECK(routed.layer < shape_.num_layers);
    is_last_ = routed.layer + 1 == shape_.num_layers;
    next_.assign(routed.next_expert_ids.begin(), routed.next_expert_ids.end());
  }

  void Predict(uint32_t distance, std::vector<ExpertPrediction>& predictions) override {
    predictions.clear();
    if (distance != 1 || is_last_) return;
    for (const uint32_t expert : next_) {
      PREGATE_CHECK(expert < shape_.num_experts);
      step_.Add(expert, 1);
    }
    step_.Take(1, predictions);
  }

 private:
  const PredictorShape shape_;
  StepProbabilities step_;
  bool is_last_ = true;
  std::vector<uint32_t> next_;  // [num_tokens, experts_per_token], or empty
};

}  // namespace

std::unique_ptr<ExpertPredictor> MakePregatePredictor(const PredictorShape& shape) {
  return std::make_unique<PregatePredictor>(shape);
}

}  // namespace pregate
