// From what each token is expected to need to what the step is expected to need.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "core/expert/expert_predictor.h"

namespace pregate {

// Evenly spread rows of a step: what many tokens need is told well enough by some of them.
class RowSample {
 public:
  RowSample(uint32_t num_rows, uint32_t most)
      : num_rows_(num_rows), size_(num_rows < most ? num_rows : most) {}

  uint32_t size() const { return size_; }
  uint32_t operator[](uint32_t i) const {
    return static_cast<uint32_t>(uint64_t{i} * num_rows_ / size_);
  }
  // Rows that each of the sample stands for.
  float rows_each() const {
    return size_ == 0 ? 0 : static_cast<float>(num_rows_) / static_cast<float>(size_);
  }

 private:
  uint32_t num_rows_;
  uint32_t size_;
};

// The probability that at least one token goes to an expert: 1 - Π (1 - p), the tokens taken as
// independent.
class StepProbabilities {
 public:
  // Below it a prediction is not worth its mention.
  static constexpr float kLeast = 1.0F / 32;

  explicit StepProbabilities(uint32_t num_experts) : spared_(num_experts, 1) {}

  // Another token's [num_experts].
  void Add(absl::Span<const float> probabilities);
  void Add(uint32_t expert, float probability) {
    // Averages may be above 1 by their rounding.
    spared_[expert] *= probability < 1 ? 1 - probability : 0;
  }

  // All that were added, each for that many tokens, into `predictions`, most probable first, of
  // equals the lowest expert. Nothing is left then.
  void Take(float tokens_each, std::vector<ExpertPrediction>& predictions);

 private:
  std::vector<float> spared_;  // [num_experts]: the probability that none goes there
};

// Most probable first, of equals the lowest expert.
void SortPredictions(std::vector<ExpertPrediction>& predictions);

// How many of the sorted `predictions` to act on: those of at least `confidence`, until the share
// `aggressiveness` of all predicted probability is covered. 1: all of them; 0: none.
size_t CountToActOn(absl::Span<const ExpertPrediction> predictions,
                    double aggressiveness,
                    double confidence);

}  // namespace pregate
