#include "bench/control_predictors.h"

#include <algorithm>

namespace pregate {
namespace {

std::vector<uint32_t> DistinctExperts(const Routing& routing, uint32_t layer) {
  const size_t row = size_t{routing.num_tokens} * routing.experts_per_token;
  const auto first = routing.expert_ids.begin() + static_cast<std::ptrdiff_t>(layer * row);
  std::vector<uint32_t> experts(first, first + static_cast<std::ptrdiff_t>(row));
  std::sort(experts.begin(), experts.end());
  experts.erase(std::unique(experts.begin(), experts.end()), experts.end());
  return experts;
}

}  // namespace

void LayerPrefetchPredictor::Predict(uint32_t distance,
                                     std::vector<ExpertPrediction>& predictions) {
  predictions.clear();
  if (layer_ + distance >= num_layers_) return;
  for (uint32_t expert = 0; expert < num_experts_; ++expert) {
    predictions.push_back({.expert = expert, .probability = 1});
  }
}

OraclePredictor::OraclePredictor(const std::vector<Routing>& routings) {
  for (const Routing& routing : routings) {
    num_layers_ = routing.num_layers;
    for (uint32_t layer = 0; layer < num_layers_; ++layer) {
      needed_.push_back(DistinctExperts(routing, layer));
    }
  }
}

void OraclePredictor::Observe(const RoutedLayer&) { ++next_; }

void OraclePredictor::Predict(uint32_t distance, std::vector<ExpertPrediction>& predictions) {
  predictions.clear();
  const size_t entry = next_ - 1 + distance;
  // Not beyond the step: what follows is another one's business.
  if (entry >= needed_.size() || entry / num_layers_ != (next_ - 1) / num_layers_) return;
  for (const uint32_t expert : needed_[entry]) {
    predictions.push_back({.expert = expert, .probability = 1});
  }
}

std::vector<std::vector<uint32_t>> LookupsOf(const std::vector<Routing>& routings,
                                             uint32_t num_experts) {
  std::vector<std::vector<uint32_t>> lookups;
  for (const Routing& routing : routings) {
    for (uint32_t layer = 0; layer < routing.num_layers; ++layer) {
      std::vector<uint32_t>& experts = lookups.emplace_back(DistinctExperts(routing, layer));
      for (uint32_t& expert : experts) expert += layer * num_experts;
    }
  }
  return lookups;
}

}  // namespace pregate
