#include <cmath>
#include <vector>

#include "core/expert/eviction_policies.h"
#include "core/expert/step_clock.h"

namespace pregate {
namespace {

// Both chosen on recorded routing: docs/routing-trace.md.
constexpr float kWeight = 0.07F;           // of the present step in the average
constexpr float kDistancePenalty = 0.05F;  // for each layer until the expert's own comes again
constexpr size_t kPowers = 256;            // (1 - kWeight)^256 is nothing

class EwmaEviction final : public EvictionPolicy {
 public:
  explicit EwmaEviction(const EvictionShape& shape)
      : shape_(shape),
        average_(size_t{shape.num_layers} * shape.num_experts),
        updated_(average_.size()) {
    for (size_t i = 0; i < kPowers; ++i) {
      decay_[i] = std::pow(1 - kWeight, static_cast<float>(i));
    }
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
    for (size_t i = 0; i < candidates.size(); ++i) {
      const uint32_t layer = candidates[i] / shape_.num_experts;
      // The present layer has been looked up: it is the one that is needed last.
      const uint32_t distance =
          (layer + shape_.num_layers - clock_.layer() - 1) % shape_.num_layers;
      worth[i] = Average(candidates[i]) - kDistancePenalty * static_cast<float>(distance);
    }
  }

  bool ranks_by_use() const override { return true; }

 private:
  // Of uses per step, as of now. Averages are brought up to date only when they are looked at.
  float Average(uint32_t expert) const {
    const uint64_t age = clock_.step() - updated_[expert];
    return age < kPowers ? average_[expert] * decay_[age] : 0;
  }

  const EvictionShape shape_;
  StepClock clock_;
  std::vector<float> average_;     // as of updated_
  std::vector<uint64_t> updated_;  // step
  float decay_[kPowers];
};

}  // namespace

std::unique_ptr<EvictionPolicy> MakeEwmaEviction(const EvictionShape& shape) {
  return std::make_unique<EwmaEviction>(shape);
}

}  // namespace pregate
