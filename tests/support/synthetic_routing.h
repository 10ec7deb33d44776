// Routing made up for tests: what a predictor is shown of a model, without one.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <random>
#include <vector>

#include "core/expert/expert_predictor.h"

namespace pregate {

// Each token's first experts are random; a layer's follow from the ones before by a permutation, or
// are random as well. Its gates and pre-gates know what will be. The same seed gives the same.
class SyntheticRouting final : public GateLookahead {
 public:
  SyntheticRouting(const PredictorShape& shape, bool is_permutation, uint32_t seed = 1)
      : shape_(shape), is_permutation_(is_permutation), random_(seed) {
    for (uint32_t layer = 0; layer < shape.num_layers; ++layer) {
      std::vector<uint32_t>& permutation = permutations_.emplace_back(shape.num_experts);
      std::iota(permutation.begin(), permutation.end(), 0);
      std::shuffle(permutation.begin(), permutation.end(), random_);
    }
  }

  // The next step, of tokens of these sequences.
  void BeginStep(std::vector<uint64_t> sequences, bool is_prefill = false) {
    sequences_ = std::move(sequences);
    is_prefill_ = is_prefill;
    expert_ids_.assign(shape_.num_layers, {});
    for (uint32_t layer = 0; layer < shape_.num_layers; ++layer) {
      for (size_t token = 0; token < sequences_.size(); ++token) Choose(layer, token);
    }
  }

  // What a predictor sees of `layer`; valid until the next call or BeginStep.
  const RoutedLayer& Layer(uint32_t layer, bool has_gates = true) {
    layer_ = layer;
    routed_ = {.layer = layer,
               .num_tokens = static_cast<uint32_t>(sequences_.size()),
               .experts_per_token = shape_.experts_per_token,
               .expert_ids = expert_ids_[layer],
               .sequences = sequences_,
               .is_prefill = is_prefill_,
               .next_expert_ids = {}};
    if (shape_.is_pregated && layer + 1 < shape_.num_layers) {
      routed_.next_expert_ids = expert_ids_[layer + 1];
    }
    if (shape_.has_gates && has_gates) routed_.gates = this;
    return routed_;
  }

  // The distinct experts of a layer, ascending.
  std::vector<uint32_t> Needed(uint32_t layer) const {
    std::vector<uint32_t> needed = expert_ids_[layer];
    std::sort(needed.begin(), needed.end());
    needed.erase(std::unique(needed.begin(), needed.end()), needed.end());
    return needed;
  }

  bool Score(uint32_t distance, absl::Span<float> probabilities) override {
    if (layer_ + distance >= shape_.num_layers) return false;
    std::fill(probabilities.begin(), probabilities.end(), 0.0F);
    const std::vector<uint32_t>& chosen = expert_ids_[layer_ + distance];
    for (size_t i = 0; i < chosen.size(); ++i) {
      const size_t row = i / shape_.experts_per_token * shape_.num_experts;
      probabilities[row + chosen[i]] = 1.0F / static_cast<float>(shape_.experts_per_token);
    }
    return true;
  }

 private:
  void Choose(uint32_t layer, size_t token) {
    std::vector<uint32_t>& ids = expert_ids_[layer];
    const size_t row = token * shape_.experts_per_token;
    for (uint32_t i = 0; i < shape_.experts_per_token; ++i) {
      uint32_t expert = 0;
      if (layer > 0 && is_permutation_) {
        expert = permutations_[layer][expert_ids_[layer - 1][row + i]];
      } else {
        do {
          expert = static_cast<uint32_t>(random_() % shape_.num_experts);
        } while (std::count(ids.begin() + static_cast<std::ptrdiff_t>(row), ids.end(), expert) > 0);
      }
      ids.push_back(expert);
    }
  }

  const PredictorShape shape_;
  const bool is_permutation_;
  std::mt19937 random_;
  std::vector<std::vector<uint32_t>> permutations_;  // [num_layers, num_experts]
  std::vector<uint64_t> sequences_;
  bool is_prefill_ = false;
  std::vector<std::vector<uint32_t>> expert_ids_;  // [num_layers, num_tokens, experts_per_token]
  RoutedLayer routed_;
  uint32_t layer_ = 0;
};

}  // namespace pregate
