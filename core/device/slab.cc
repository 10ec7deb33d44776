#include "core/device/slab.h"

#include <utility>

#include "core/base/check.h"
#include "core/base/status_macros.h"

namespace pregate {
namespace {

constexpr uint64_t kPage = 4096;

uint64_t RoundUp(uint64_t bytes, uint64_t unit) { return (bytes + unit - 1) / unit * unit; }

}  // namespace

Slab::Slab(Backend& backend, Buffer reserved, uint64_t stride, uint32_t max_slots)
    : backend_(backend), reserved_(std::move(reserved)), stride_(stride), max_slots_(max_slots) {}

absl::StatusOr<std::unique_ptr<Slab>> Slab::Create(Backend& backend,
                                                   uint64_t slot_bytes,
                                                   uint32_t max_slots) {
  PREGATE_CHECK(slot_bytes > 0 && max_slots > 0);
  const uint64_t stride = RoundUp(slot_bytes, kPage);
  PREGATE_ASSIGN_OR_RETURN(Buffer reserved,
                           backend.Reserve(RoundUp(stride * max_slots, Backend::commit_bytes())));
  return std::unique_ptr<Slab>(new Slab(backend, std::move(reserved), stride, max_slots));
}

absl::Status Slab::Resize(uint32_t num_slots) {
  PREGATE_CHECK(num_slots <= max_slots_);
  const uint64_t wanted = RoundUp(num_slots * stride_, Backend::commit_bytes());
  if (wanted > committed_) {
    PREGATE_RETURN_IF_ERROR(backend_.Commit(reserved_, committed_, wanted - committed_));
  } else if (wanted < committed_) {
    PREGATE_RETURN_IF_ERROR(backend_.Decommit(reserved_, wanted, committed_ - wanted));
  }
  committed_ = wanted;
  num_slots_ = num_slots;
  return absl::OkStatus();
}

}  // namespace pregate
