// Slots of one size in device memory, as many as are wanted at the moment.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/device/backend.h"

namespace pregate {

// Slot i begins at base() + i · stride_bytes(), whatever the slab's size: kernels take (slot ids,
// base, stride). Addresses are reserved for `max_slots`; memory is there for the first num_slots.
// Used by one thread at a time.
class Slab {
 public:
  // With no slot yet. `backend` outlives this.
  static absl::StatusOr<std::unique_ptr<Slab>> Create(Backend& backend,
                                                      uint64_t slot_bytes,
                                                      uint32_t max_slots);

  // Slots that lie in the first `num_slots` keep their place and content. Growing may fail with
  // RESOURCE_EXHAUSTED and changes nothing then. Nobody may use the slots that go.
  absl::Status Resize(uint32_t num_slots);

  uint32_t num_slots() const { return num_slots_; }
  uint32_t max_slots() const { return max_slots_; }
  std::byte* base() const { return reserved_.data(); }
  uint64_t stride_bytes() const { return stride_; }  // slot_bytes, rounded up to 4 KiB
  std::byte* slot(uint32_t index) const { return base() + index * stride_; }
  uint64_t committed_bytes() const { return committed_; }  // of memory that is there

 private:
  Slab(Backend& backend, Buffer reserved, uint64_t stride, uint32_t max_slots);

  Backend& backend_;
  const Buffer reserved_;
  const uint64_t stride_;
  const uint32_t max_slots_;
  uint32_t num_slots_ = 0;
  uint64_t committed_ = 0;
};

}  // namespace pregate
