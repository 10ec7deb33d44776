#include <vector>

#include "core/expert/eviction_policies.h"
#include "core/expert/step_clock.h"

namespace pregate {
namespace {

class LfruEviction final : public EvictionPolicy {
 public:
  explicit LfruEviction(const EvictionShape& shape)
      : uses_(size_t{shape.num_layers} * shape.num_experts), last_(uses_.size()) {}

  absl::string_view name() const override { return "lfru"; }

  void OnLookup(uint32_t layer, absl::Span<const uint32_t> experts) override {
    clock_.OnLayer(layer);
    for (const uint32_t expert : experts) {
      ++uses_[expert];
      last_[expert] = clock_.step();
    }
  }

  void OnInsert(uint32_t) override {}

  void Rank(absl::Span<const uint32_t> candidates, absl::Span<float> worth) const override {
    for (size_t i = 0; i < candidates.size(); ++i) {
      const auto age =
          static_cast<float>(static_cast<int32_t>(clock_.step() - last_[candidates[i]]));
      worth[i] = static_cast<float>(static_cast<int32_t>(uses_[candidates[i]])) / (age + 1);
    }
  }

 private:
  StepClock clock_;
  std::vector<uint32_t> uses_;
  std::vector<uint32_t> last_;  // step of the last use
};

}  // namespace

std::unique_ptr<EvictionPolicy> MakeLfruEviction(const EvictionShape& shape) {
  return std::make_unique<LfruEviction>(shape);
}

}  // namespace pregate
