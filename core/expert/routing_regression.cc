#include "core/expert/routing_regression.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "core/base/status_macros.h"

namespace pregate {
namespace {

// Chosen on recorded routing: docs/speculation.md.
constexpr float kRate = 0.05F;      // of the descent
constexpr float kBiasRate = 0.01F;  // every token moves the bias
constexpr float kRankDecay = 0.6F;  // of x_j, from the first expert of a source to behind the last
constexpr float kMostLogit = 15;
constexpr float kMostWeight = 1e6F;  // more is no weight that was learned

// 1 / (1 + e^-x) to 1e-4: e^-x = 2^n · 2^f with |f| ≤ 1/2, 2^f by its Taylor series. No branch and
// no call, so that loops over it become vector instructions.
float Sigmoid(float x) {
  x = x > kMostLogit ? kMostLogit : x;
  x = x < -kMostLogit ? -kMostLogit : x;
  const float t = x * -1.44269504F;
  constexpr float kMagic = 12582912.0F;  // 1.5 · 2^23: adding it rounds to a whole number
  const float n = (t + kMagic) - kMagic;
  const float f = t - n;
  const float mantissa =
      1 + f * (0.6931472F + f * (0.2402265F + f * (0.0555041F + f * 0.0096181F)));
  const float power = std::bit_cast<float>((static_cast<int32_t>(n) + 127) << 23);
  return 1 / (1 + mantissa * power);
}

// to[i] += x · row[i]
void AddScaled(float x, const float* row, size_t size, float* to) {
  for (size_t i = 0; i < size; ++i) to[i] += x * row[i];
}

}  // namespace

RoutingRegression::RoutingRegression(const PredictorShape& shape)
    : num_experts_(shape.num_experts),
      width_(shape.experts_per_token),
      weights_(size_t{shape.num_layers} * kSources * shape.num_experts * shape.num_experts),
      estimates_(shape.num_experts) {
  const float chosen = static_cast<float>(width_) / static_cast<float>(num_experts_);
  const float prior = chosen < 1 ? std::log(chosen / (1 - chosen)) : kMostLogit;
  bias_.assign(size_t{shape.num_layers} * num_experts_, prior);
  inputs_.reserve(size_t{kSources} * width_);
}

void RoutingRegression::CollectInputs(uint32_t layer, const Sources& sources) {
  inputs_.clear();
  for (uint32_t source = 0; source < kSources; ++source) {
    float x = 1;
    for (const uint32_t expert : sources[source]) {
      const size_t table = size_t{layer} * kSources + source;
      inputs_.push_back({.row = (table * num_experts_ + expert) * num_experts_, .x = x});
      x -= kRankDecay / static_cast<float>(width_);
    }
  }
}

absl::Span<const float> RoutingRegression::Predict(uint32_t layer, const Sources& sources) {
  CollectInputs(layer, sources);
  const float* bias = &bias_[size_t{layer} * num_experts_];
  std::copy_n(bias, num_experts_, estimates_.begin());
  for (const Input& input : inputs_) {
    AddScaled(input.x, &weights_[input.row], num_experts_, estimates_.data());
  }
  for (float& estimate : estimates_) estimate = Sigmoid(estimate);
  return estimates_;
}

void RoutingRegression::Learn(uint32_t layer,
                              const Sources& sources,
                              absl::Span<const uint16_t> chosen) {
  Predict(layer, sources);
  // The gradient of the loss by the logit, downhill: what happened less what was expected.
  for (float& estimate : estimates_) estimate = -estimate;
  for (const uint32_t expert : chosen) estimates_[expert] += 1;
  const float* downhill = estimates_.data();
  AddScaled(kBiasRate, downhill, num_experts_, &bias_[size_t{layer} * num_experts_]);
  for (const Input& input : inputs_) {
    AddScaled(kRate * input.x, downhill, num_experts_, &weights_[input.row]);
  }
}

void RoutingRegression::Save(StateWriter& writer) const {
  writer.Table(weights_);
  writer.Table(bias_);
}

absl::Status RoutingRegression::Load(StateReader& reader) {
  PREGATE_RETURN_IF_ERROR(reader.Table(-kMostWeight, kMostWeight, weights_));
  return reader.Table(-kMostWeight, kMostWeight, bias_);
}

}  // namespace pregate
