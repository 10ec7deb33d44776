#include "core/expert/prediction_list.h"

#include <algorithm>
#include <cmath>

namespace pregate {

void StepProbabilities::Add(absl::Span<const float> probabilities) {
  for (uint32_t expert = 0; expert < spared_.size(); ++expert) Add(expert, probabilities[expert]);
}

void StepProbabilities::Take(float tokens_each, std::vector<ExpertPrediction>& predictions) {
  predictions.clear();
  for (uint32_t expert = 0; expert < spared_.size(); ++expert) {
    const float spared =
        tokens_each == 1 ? spared_[expert] : std::pow(spared_[expert], tokens_each);
    if (1 - spared >= kLeast) predictions.push_back({.expert = expert, .probability = 1 - spared});
    spared_[expert] = 1;
  }
  SortPredictions(predictions);
}

void SortPredictions(std::vector<ExpertPrediction>& predictions) {
  std::sort(predictions.begin(),
            predictions.end(),
            [](const ExpertPrediction& a, const ExpertPrediction& b) {
              return a.probability != b.probability ? a.probability > b.probability
                                                    : a.expert < b.expert;
            });
}

size_t CountToActOn(absl::Span<const ExpertPrediction> predictions,
                    double aggressiveness,
                    double confidence) {
  double mass = 0;
  for (const ExpertPrediction& prediction : predictions) mass += prediction.probability;
  // All, whatever the rounding of the sum.
  const double wanted = aggressiveness >= 1 ? mass + 1 : aggressiveness * mass;
  double covered = 0;
  size_t count = 0;
  for (const ExpertPrediction& prediction : predictions) {
    if (covered >= wanted || prediction.probability < confidence) break;
    covered += prediction.probability;
    ++count;
  }
  return count;
}

}  // namespace pregate
