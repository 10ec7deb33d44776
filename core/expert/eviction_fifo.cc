#include <vector>

#include "core/expert/eviction_policies.h"

namespace pregate {
namespace {

class FifoEviction final : public EvictionPolicy {
 public:
  explicit FifoEviction(const EvictionShape& shape)
      : inserted_(size_t{shape.num_layers} * shape.num_experts) {}

  absl::string_view name() const override { return "fifo"; }
  void OnLookup(uint32_t, absl::Span<const uint32_t>) override {}
  void OnInsert(uint32_t expert) override { inserted_[expert] = ++insertions_; }

  void Rank(absl::Span<const uint32_t> candidates, absl::Span<float> worth) const override {
    // As an age, since floats count to 2^24 only.
    for (size_t i = 0; i < candidates.size(); ++i) {
      worth[i] = -static_cast<float>(static_cast<int32_t>(insertions_ - inserted_[candidates[i]]));
    }
  }

 private:
  uint32_t insertions_ = 0;
  std::vector<uint32_t> inserted_;  // when the expert came last, in insertions
};

}  // namespace

std::unique_ptr<EvictionPolicy> MakeFifoEviction(const EvictionShape& shape) {
  return std::make_unique<FifoEviction>(shape);
}

}  // namespace pregate
