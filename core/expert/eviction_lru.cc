#include <vector>

#include "core/expert/eviction_policies.h"

namespace pregate {
namespace {

class LruEviction final : public EvictionPolicy {
 public:
  explicit LruEviction(const EvictionShape& shape)
      : last_(size_t{shape.num_layers} * shape.num_experts) {}

  absl::string_view name() const override { return "lru"; }

  void OnLookup(uint32_t, absl::Span<const uint32_t> experts) override {
    ++lookups_;
    for (const uint32_t expert : experts) last_[expert] = lookups_;
  }

  // One that came ahead of its need is as if it had been used: it would leave first otherwise.
  void OnInsert(uint32_t expert) override { last_[expert] = lookups_; }

  void Rank(absl::Span<const uint32_t> candidates, absl::Span<float> worth) const override {
    // As an age, since floats count to 2^24 only.
    for (size_t i = 0; i < candidates.size(); ++i) {
      worth[i] = -static_cast<float>(static_cast<int32_t>(lookups_ - last_[candidates[i]]));
    }
  }

 private:
  uint32_t lookups_ = 0;
  std::vector<uint32_t> last_;  // look-up of the last use or arrival
};

}  // namespace

std::unique_ptr<EvictionPolicy> MakeLruEviction(const EvictionShape& shape) {
  return std::make_unique<LruEviction>(shape);
}

}  // namespace pregate
