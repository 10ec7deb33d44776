#include <algorithm>
#include <cmath>
#include <vector>

#include "core/expert/eviction_policies.h"
#include "core/expert/step_clock.h"

namespace pregate {
namespace {

// Both chosen on recorded routing: docs/routing-trace.md.
constexpr float kWeight = 0.05F;           // of the present step in the average
constexpr float kDistancePenalty = 0.05F;  // for each layer until the expert's own comes again
constexpr uint32_t kPowers = 256;          // (1 - kWeight)^256 is nothing

class EwmaEviction final : public EvictionPolicy {
 public:
  explicit EwmaEviction(const EvictionShape& shape)
      : num_layers_(shape.num_layers),
        layer_of_(size_t{shape.num_layers} * shape.num_experts),
        average_(layer_of_.size()),
        updated_(layer_of_.size()),
        penalty_(shape.num_layers) {
    for (size_t i = 0; i < layer_of_.size(); ++i) {
      layer_of_[i] = static_cast<uint32_t>(i / shape.num_experts);
    }
    for (uint32_t i = 0; i < kPowers; ++i) {
      decay_[i] = std::pow(1 - kWeight, static_cast<float>(i));
    }
    decay_[kPowers] = 0;
  }

  absl::string_view name() const override { return "ewma"; }

  void OnLookup(uint32_t layer, absl::Span<const uint32_t> experts) override {
    clock_.OnLayer(layer);
    for (const uint32_t expert : experts) {
      average_[expert] = Average(expert) + kWeight;
      updated_[expert] = clock_.step();
    }
  }

  void OnInsert(uint32_t) override {}

  void Rank(absl::Span<const uint32_t> candidates, absl::Span<float> worth) const override {
    for (uint32_t layer = 0; layer < num_layers_; ++layer) {
      // The present layer has been looked up: it is the one that is needed last.
      const uint32_t distance = (layer + num_layers_ - clock_.layer() - 1) % num_layers_;
      penalty_[layer] = kDistancePenalty * static_cast<float>(distance);
    }
    for (size_t i = 0; i < candidates.size(); ++i) {
      worth[i] = Average(candidates[i]) - penalty_[layer_of_[candidates[i]]];
    }
  }

  bool ranks_by_use() const override { return true; }

 private:
  // Of uses per step, as of now. Averages are brought up to date only when they are looked at.
  float Average(uint32_t expert) const {
    const uint32_t age = clock_.step() - updated_[expert];
    return average_[expert] * decay_[std::min(age, kPowers)];
  }

  const uint32_t num_layers_;
  std::vector<uint32_t> layer_of_;  // [experts]
  StepClock clock_;
  std::vector<float> average_;          // [experts], as of updated_
  std::vector<uint32_t> updated_;       // [experts]: step
  mutable std::vector<float> penalty_;  // [layers]: scratch of Rank
  float decay_[kPowers + 1];            // by age, nothing at the end
};

}  // namespace

std::unique_ptr<EvictionPolicy> MakeEwmaEviction(const EvictionShape& shape) {
  return std::make_unique<EwmaEviction>(shape);
}

}  // namespace pregate
