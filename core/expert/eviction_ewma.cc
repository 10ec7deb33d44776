#include <vector>

#include "core/expert/eviction_policies.h"
#include "core/expert/step_clock.h"

namespace pregate {
namespace {

// Both chosen on recorded routing: docs/routing-trace.md.
constexpr float kWeight = 0.05F;           // of the present step in the average
constexpr float kDistancePenalty = 0.05F;  // for each layer until the expert's own comes again

// All averages decay alike, by 1 - kWeight a step. So they stay as they are, and what a use adds
// grows instead; every kStepsToRescale steps all are scaled back, before that runs out of range.
constexpr uint32_t kStepsToRescale = 512;
constexpr float kNothing = 1e-20F;  // of uses a step; smaller numbers are slow to compute with

class EwmaEviction final : public EvictionPolicy {
 public:
  explicit EwmaEviction(const EvictionShape& shape)
      : num_layers_(shape.num_layers), experts_(size_t{shape.num_layers} * shape.num_experts) {
    for (size_t i = 0; i < experts_.size(); ++i) {
      experts_[i].layer = static_cast<uint32_t>(i / shape.num_experts);
    }
    for (uint32_t i = 0; i < 2 * num_layers_; ++i) {
      penalties_.push_back(kDistancePenalty * static_cast<float>(i % num_layers_));
    }
  }

  absl::string_view name() const override { return "ewma"; }

  void OnLookup(uint32_t layer, absl::Span<const uint32_t> experts) override {
    const uint32_t step = clock_.step();
    clock_.OnLayer(layer);
    if (clock_.step() != step) BeginStep();
    for (const uint32_t expert : experts) experts_[expert].average += kWeight * growth_;
  }

  void OnInsert(uint32_t) override {}

  void Rank(absl::Span<const uint32_t> candidates, absl::Span<float> worth) const override {
    const float decay = 1 / growth_;
    // By layer. The present one has been looked up: it is the one that is needed last.
    const float* const penalties = &penalties_[num_layers_ - 1 - clock_.layer()];
    for (size_t i = 0; i < candidates.size(); ++i) {
      const Expert& expert = experts_[candidates[i]];
      worth[i] = expert.average * decay - penalties[expert.layer];
    }
  }

  bool ranks_by_use() const override { return true; }

 private:
  struct Expert {
    float average = 0;  // of uses per step, times growth_
    uint32_t layer = 0;
  };

  void BeginStep() {
    growth_ /= 1 - kWeight;
    if (++steps_since_rescale_ < kStepsToRescale) return;
    steps_since_rescale_ = 0;
    for (Expert& expert : experts_) {
      expert.average /= growth_;
      if (expert.average < kNothing) expert.average = 0;
    }
    growth_ = 1;
  }

  const uint32_t num_layers_;
  StepClock clock_;
  std::vector<Expert> experts_;   // [num_layers, num_experts]
  std::vector<float> penalties_;  // [2 * num_layers]: of each distance, twice over
  float growth_ = 1;              // 1 / (1 - kWeight), to the steps since all were scaled
  uint32_t steps_since_rescale_ = 0;
};

}  // namespace

std::unique_ptr<EvictionPolicy> MakeEwmaEviction(const EvictionShape& shape) {
  return std::make_unique<EwmaEviction>(shape);
}

}  // namespace pregate
