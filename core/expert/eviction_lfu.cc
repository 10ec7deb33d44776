#include <vector>

#include "core/expert/eviction_policies.h"

namespace pregate {
namespace {

class LfuEviction final : public EvictionPolicy {
 public:
  explicit LfuEviction(const EvictionShape& shape)
      : uses_(size_t{shape.num_layers} * shape.num_experts) {}

  absl::string_view name() const override { return "lfu"; }

  void OnLookup(uint32_t, absl::Span<const uint32_t> experts) override {
    for (const uint32_t expert : experts) ++uses_[expert];
  }

  void OnInsert(uint32_t) override {}

  void Rank(absl::Span<const uint32_t> candidates, absl::Span<float> worth) const override {
    for (size_t i = 0; i < candidates.size(); ++i) {
      worth[i] = static_cast<float>(static_cast<int32_t>(uses_[candidates[i]]));
    }
  }

 private:
  std::vector<uint32_t> uses_;
};

}  // namespace

std::unique_ptr<EvictionPolicy> MakeLfuEviction(const EvictionShape& shape) {
  return std::make_unique<LfuEviction>(shape);
}

}  // namespace pregate
