#include "core/expert/routing_regression.h"

#include <cmath>
#include <cstring>

#include "core/base/status_macros.h"

namespace pregate {
namespace {

// Chosen on recorded routing: docs/speculation.md.
constexpr float kRate = 0.05F;      // of the descent
constexpr float kBiasRate = 0.01F;  // every token moves the bias
constexpr float kRankDecay = 0.6F;  // of x_j, from the first expert of a source to behind the last
constexpr float kMostLogit = 15;
constexpr float kMostWeight = 1e6F;  // more is no weight that was learned

// Four floats: what every CPU has, whatever the compiler is told.
constexpr size_t kLanes = 4;
typedef float Lanes __attribute__((vector_size(16)));
typedef int32_t IntLanes __attribute__((vector_size(16)));

Lanes LoadLanes(const float* x) {
  Lanes lanes;
  std::memcpy(&lanes, x, sizeof(lanes));
  return lanes;
}
void StoreLanes(Lanes lanes, float* out) { std::memcpy(out, &lanes, sizeof(lanes)); }

// 1 / (1 + e^-x) to 1e-4: e^-x = 2^n · 2^f with |f| ≤ 1/2, 2^f by its Taylor series.
Lanes Sigmoid(Lanes x) {
  const Lanes most = Lanes{} + kMostLogit;
  x = x > most ? most : x;
  x = x < -most ? -most : x;
  const Lanes t = x * -1.44269504F;
  constexpr float kMagic = 12582912.0F;  // 1.5 · 2^23: adding it rounds to a whole number
  const Lanes n = (t + kMagic) - kMagic;
  const Lanes f = t - n;
  const Lanes mantissa =
      1 + f * (0.6931472F + f * (0.2402265F + f * (0.0555041F + f * 0.0096181F)));
  const IntLanes bits = (__builtin_convertvector(n, IntLanes) + 127) << 23;
  Lanes power;
  std::memcpy(&power, &bits, sizeof(power));
  return 1 / (1 + mantissa * power);
}

}  // namespace

RoutingRegression::RoutingRegression(const PredictorShape& shape)
    : num_experts_(shape.num_experts),
      width_(shape.experts_per_token),
      stride_((shape.num_experts + kLanes - 1) / kLanes * kLanes),
      weights_(size_t{shape.num_layers} * kSources * shape.num_experts * stride_),
      estimates_(stride_) {
  const float chosen = static_cast<float>(width_) / static_cast<float>(num_experts_);
  const float prior = chosen < 1 ? std::log(chosen / (1 - chosen)) : kMostLogit;
  bias_.assign(shape.num_layers * stride_, prior);
  inputs_.reserve(size_t{kSources} * width_);
}

void RoutingRegression::CollectInputs(uint32_t layer, const Sources& sources) {
  inputs_.clear();
  for (uint32_t source = 0; source < kSources; ++source) {
    float x = 1;
    for (const uint32_t expert : sources[source]) {
      const size_t table = size_t{layer} * kSources + source;
      inputs_.push_back({.row = (table * num_experts_ + expert) * stride_, .x = x});
      x -= kRankDecay / static_cast<float>(width_);
    }
  }
}

absl::Span<const float> RoutingRegression::Predict(uint32_t layer, const Sources& sources) {
  CollectInputs(layer, sources);
  const float* bias = &bias_[layer * stride_];
  for (size_t e = 0; e < stride_; e += kLanes) {
    Lanes logit = LoadLanes(bias + e);
    for (const Input& input : inputs_) logit += input.x * LoadLanes(&weights_[input.row + e]);
    StoreLanes(Sigmoid(logit), &estimates_[e]);
  }
  return estimates_;
}

void RoutingRegression::Learn(uint32_t layer,
                              const Sources& sources,
                              absl::Span<const uint16_t> chosen) {
  Predict(layer, sources);
  // The gradient of the loss by the logit, downhill: what happened less what was expected.
  for (float& estimate : estimates_) estimate = -estimate;
  for (const uint32_t expert : chosen) estimates_[expert] += 1;
  float* bias = &bias_[layer * stride_];
  for (size_t e = 0; e < stride_; e += kLanes) {
    const Lanes downhill = LoadLanes(&estimates_[e]);
    StoreLanes(LoadLanes(bias + e) + kBiasRate * downhill, bias + e);
    for (const Input& input : inputs_) {
      float* weight = &weights_[input.row + e];
      StoreLanes(LoadLanes(weight) + kRate * input.x * downhill, weight);
    }
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
