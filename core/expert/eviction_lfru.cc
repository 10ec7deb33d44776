#include <vector>

#include "core/expert/eviction_policies.h"
#include "core/expert/step_clock.h"

namespace pregate {
namespace {

class LfruEviction final : public EvictionPolicy {
 public:
  explicit LfruEviction(const EvictionShape& shape)
      : experts_(size_t{shape.num_layers} * shape.num_experts) {
    for (size_t i = 0; i < experts_.size(); ++i) {
      experts_[i].layer = static_cast<uint32_t>(i / shape.num_experts);
    }
  }

  absl::string_view name() const override { return "lfru"; }

  void OnLookup(uint32_t layer, absl::Span<const uint32_t> experts) override {
    clock_.OnLayer(layer);
    for (const uint32_t expert : experts) {
      experts_[expert].uses += 1;
      experts_[expert].last = clock_.step();
    }
  }

  void OnInsert(uint32_t) override {}

  void Rank(absl::Span<const uint32_t> candidates, absl::Span<float> worth) const override {
    for (size_t i = 0; i < candidates.size(); ++i) {
      const Expert& expert = experts_[candidates[i]];
      // Whole steps: what lies ahead in this one was used less than a step ago.
      const uint32_t begun = clock_.step() - expert.last;
      const uint32_t age = begun - (expert.layer > clock_.layer() && begun > 0 ? 1 : 0);
      worth[i] = expert.uses / (static_cast<float>(static_cast<int32_t>(age)) + 1);
    }
  }

 private:
  struct Expert {
    float uses = 0;     // counts to 2^24 and stays there: 16 million steps
    uint32_t last = 0;  // step of the last use
    uint32_t layer = 0;
  };

  StepClock clock_;
  std::vector<Expert> experts_;  // [num_layers, num_experts]
};

}  // namespace

std::unique_ptr<EvictionPolicy> MakeLfruEviction(const EvictionShape& shape) {
  return std::make_unique<LfruEviction>(shape);
}

}  // namespace pregate
