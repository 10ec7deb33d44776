#include "core/expert/slot_budget.h"

#include <algorithm>

namespace pregate {
namespace {

constexpr uint32_t kRoomyLooks = 5;

}  // namespace

std::optional<uint64_t> SlotBudget::Update(const Look& look) {
  const uint64_t low = look.total_bytes / 20;
  const uint64_t high = look.total_bytes / 10;
  const uint64_t aim = (low + high) / 2;
  if (look.free_bytes < low) {
    num_roomy_ = 0;
    const uint64_t missing = std::min(aim - look.free_bytes, look.held_bytes);
    const uint64_t budget = std::max(look.held_bytes - missing, slot_bytes_);
    // Slots that are still being given back are not held against it twice.
    return budget < look.budget_bytes ? std::make_optional(budget) : std::nullopt;
  }
  if (look.free_bytes < high || look.budget_bytes >= planned_bytes_) {
    num_roomy_ = 0;
    return std::nullopt;
  }
  if (++num_roomy_ < kRoomyLooks) return std::nullopt;
  num_roomy_ = 0;
  return std::min(planned_bytes_,
                  std::max(look.budget_bytes, look.held_bytes + (look.free_bytes - aim)));
}

}  // namespace pregate
