// How the routing of one layer follows from routings that are known already.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "core/expert/expert_predictor.h"
#include "core/expert/predictor_state.h"

namespace pregate {

// Logistic regression for each expert of each layer, learned online:
//   logit P(e) = bias[e] + Σ_s Σ_j x_j · weight[s][source s's j-th expert][e],  x_j = 1 - 0.6 · j /
//   k
// A source is a token's experts somewhere else, best first, whose better ones say more. Each token
// that is learned moves the parameters by one step of stochastic gradient descent on the
// logarithmic loss (Bottou, "Large-scale machine learning with stochastic gradient descent", 2010).
// The rate does not fall, so that old text is forgotten.
//
// num_layers · kSources · num_experts² · 4 bytes. Used by one thread at a time.
class RoutingRegression {
 public:
  static constexpr uint32_t kSources = 4;
  using Sources = std::array<absl::Span<const uint16_t>, kSources>;  // empty: not known

  explicit RoutingRegression(const PredictorShape& shape);

  // For one token and each expert of `layer`; valid until the next call. num_experts values,
  // rounded up to a multiple of four.
  absl::Span<const float> Predict(uint32_t layer, const Sources& sources);

  // The token went to `chosen`.
  void Learn(uint32_t layer, const Sources& sources, absl::Span<const uint16_t> chosen);

  void Save(StateWriter& writer) const;
  // Undefined values on error: load into a new one.
  absl::Status Load(StateReader& reader);

 private:
  // A row of weights that takes part, and how much.
  struct Input {
    size_t row;
    float x;
  };
  void CollectInputs(uint32_t layer, const Sources& sources);

  const uint32_t num_experts_;
  const uint32_t width_;          // experts of a token
  std::vector<float> weights_;    // [num_layers, kSources, num_experts, num_experts]
  std::vector<float> bias_;       // [num_layers, num_experts]
  std::vector<Input> inputs_;     // of the token at hand
  std::vector<float> estimates_;  // [num_experts]: logits, then probabilities
};

}  // namespace pregate
