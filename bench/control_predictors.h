// Predictors that no server can have: the controls that speculation is measured against.
#pragma once

#include <vector>

#include "core/expert/expert_predictor.h"
#include "core/model/forward.h"

namespace pregate {

// Every expert of the next layer, whatever was routed.
class LayerPrefetchPredictor final : public ExpertPredictor {
 public:
  LayerPrefetchPredictor(uint32_t num_layers, uint32_t num_experts)
      : num_layers_(num_layers), num_experts_(num_experts) {}

  absl::string_view name() const override { return "layer_prefetch"; }
  void Observe(const RoutedLayer& routed) override { layer_ = routed.layer; }
  void Predict(uint32_t distance, std::vector<ExpertPrediction>& predictions) override;

 private:
  const uint32_t num_layers_;
  const uint32_t num_experts_;
  uint32_t layer_ = 0;
};

// The experts that the steps to come will need, known from having run them before.
class OraclePredictor final : public ExpertPredictor {
 public:
  // `routings`: of every step from the next on.
  explicit OraclePredictor(const std::vector<Routing>& routings);

  absl::string_view name() const override { return "oracle"; }
  void Observe(const RoutedLayer& routed) override;
  void Predict(uint32_t distance, std::vector<ExpertPrediction>& predictions) override;

 private:
  std::vector<std::vector<uint32_t>> needed_;  // distinct experts [step · num_layers + layer]
  uint32_t num_layers_ = 0;
  size_t next_ = 0;  // entry of needed_ that will be observed next
};

// The distinct experts of each step's layers, as flat numbers, in the order of their look-ups.
std::vector<std::vector<uint32_t>> LookupsOf(const std::vector<Routing>& routings,
                                             uint32_t num_experts);

}  // namespace pregate
