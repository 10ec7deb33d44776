// What slots may take of the device's memory while others take and give back theirs.
#pragma once

#include <cstdint>
#include <optional>

namespace pregate {

// A function of what it is shown. Of the device's memory, 5 % are kept free: with less the slots
// give up as much as leaves 7.5 %. With 10 % free, five looks in a row, they take back what leaves
// 7.5 %, up to what was planned. What lies between changes nothing, so that a neighbour's small
// changes do not move experts to and fro. Not thread-safe.
class SlotBudget {
 public:
  // `planned_bytes`: at most; `slot_bytes`: at least.
  SlotBudget(uint64_t planned_bytes, uint64_t slot_bytes)
      : planned_bytes_(planned_bytes), slot_bytes_(slot_bytes) {}

  struct Look {
    uint64_t total_bytes = 0;   // of the device
    uint64_t free_bytes = 0;    // of them
    uint64_t held_bytes = 0;    // by slots
    uint64_t budget_bytes = 0;  // that slots may take now
  };
  // What they may take from now on, when that is to change.
  std::optional<uint64_t> Update(const Look& look);

 private:
  const uint64_t planned_bytes_;
  const uint64_t slot_bytes_;
  uint32_t num_roomy_ = 0;  // looks in a row
};

}  // namespace pregate
