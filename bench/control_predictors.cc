#include "bench/control_predictors.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/kernel/sampling.h"

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

OraclePredictor::OraclePredictor(std::shared_ptr<const RoutingTrace> truth,
                                 double recall,
                                 uint32_t horizon)
    : truth_(std::move(truth)),
      recall_(recall),
      horizon_(horizon),
      is_taken_(truth_->num_experts) {}

void OraclePredictor::Observe(const RoutedLayer& routed) {
  if (routed.layer == 0) ++step_;
  routed_ = routed;
}

void OraclePredictor::Predict(uint32_t distance, std::vector<ExpertPrediction>& predictions) {
  predictions.clear();
  const uint32_t layer = routed_.layer + distance;
  if (distance > horizon_ || layer >= truth_->num_layers) return;
  std::fill(is_taken_.begin(), is_taken_.end(), uint8_t{0});
  for (uint32_t token = 0; token < routed_.num_tokens; ++token) {
    for (const uint16_t expert :
         truth_->ForcedExperts(routed_.sequences[token], routed_.positions[token], layer)) {
      is_taken_[expert] = 1;
    }
  }
  const std::vector<uint8_t> is_needed = is_taken_;
  const uint64_t seed = step_ * truth_->num_layers + layer;
  uint32_t next_wrong = 0;
  for (uint32_t expert = 0; expert < truth_->num_experts; ++expert) {
    if (is_needed[expert] == 0) continue;
    if (UniformAt(seed, expert) < recall_) {
      predictions.push_back({.expert = expert, .probability = 1});
      continue;
    }
    // The next free one behind the expert, so that what is guessed wrong varies.
    next_wrong = std::max(next_wrong, expert + 1);
    uint32_t tries = 0;
    while (tries < truth_->num_experts && is_taken_[next_wrong % truth_->num_experts] != 0) {
      ++next_wrong, ++tries;
    }
    if (tries == truth_->num_experts) continue;
    is_taken_[next_wrong % truth_->num_experts] = 1;
    predictions.push_back({.expert = next_wrong % truth_->num_experts, .probability = 1});
  }
}

std::string NameOf(const SimulatedPredictor& simulated) {
  return absl::StrFormat(
      "simulated (recall %.2f, horizon %d)", simulated.recall, simulated.horizon);
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

RoutingTrace TraceOf(const std::vector<Routing>& routings,
                     uint32_t batch_size,
                     const std::string& model,
                     uint32_t num_experts) {
  RoutingTrace trace;
  trace.model = model;
  trace.num_layers = routings.front().num_layers;
  trace.num_experts = num_experts;
  trace.experts_per_token = routings.front().experts_per_token;
  const auto append = [&trace](const Routing& routing, uint32_t token, uint32_t sequence) {
    std::vector<uint16_t>& ids = trace.sequences[sequence].expert_ids;
    for (uint32_t layer = 0; layer < routing.num_layers; ++layer) {
      for (const uint32_t expert : routing.ExpertsOf(layer, token)) {
        ids.push_back(static_cast<uint16_t>(expert));
      }
    }
  };
  for (uint32_t sequence = 0; sequence < batch_size; ++sequence) {
    const Routing& prompt = routings[sequence];
    RoutingTrace::Sequence& recorded = trace.sequences.emplace_back();
    recorded.id = absl::StrCat(sequence);
    recorded.num_prompt_tokens = prompt.num_tokens;
    for (uint32_t token = 0; token < prompt.num_tokens; ++token) append(prompt, token, sequence);
  }
  for (size_t step = batch_size; step < routings.size(); ++step) {
    for (uint32_t sequence = 0; sequence < batch_size; ++sequence) {
      append(routings[step], sequence, sequence);
    }
  }
  return trace;
}

}  // namespace pregate
