#include "core/expert/host_tier.h"

#include <algorithm>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "core/base/bytes.h"
#include "core/base/status_macros.h"
#include "core/expert/host_arena.h"

namespace pregate {

HostRecord::HostRecord(absl::Span<const std::byte> bytes,
                       bool from_disk,
                       std::function<void()> release)
    : bytes_(bytes), from_disk_(from_disk), release_(std::move(release)) {}

HostRecord::~HostRecord() {
  if (release_) release_();
}

HostRecord::HostRecord(HostRecord&& other) noexcept
    : bytes_(std::exchange(other.bytes_, {})),
      from_disk_(other.from_disk_),
      release_(std::exchange(other.release_, nullptr)) {}

HostRecord& HostRecord::operator=(HostRecord&& other) noexcept {
  if (this == &other) return *this;
  // What was held goes back when `moved` ends.
  HostRecord moved(std::move(other));
  std::swap(bytes_, moved.bytes_);
  std::swap(from_disk_, moved.from_disk_);
  std::swap(release_, moved.release_);
  return *this;
}

absl::StatusOr<std::unique_ptr<HostTier>> HostTier::Create(ExpertPack pack,
                                                           Backend& backend,
                                                           const Options& options,
                                                           const Logger& logger) {
  const uint64_t stride = pack.stride_bytes();
  const uint64_t least = std::min<uint64_t>(2, pack.num_records());
  const uint64_t num_slots = std::min(options.budget_bytes / stride, pack.num_records());
  if (num_slots < least) {
    return absl::ResourceExhaustedError(absl::StrCat("a host memory budget of ",
                                                     FormatBytes(options.budget_bytes),
                                                     " holds ",
                                                     num_slots,
                                                     " experts of ",
                                                     pack.path(),
                                                     ", at least ",
                                                     least,
                                                     " (",
                                                     FormatBytes(least * stride),
                                                     ") are needed"));
  }
  auto arena = std::make_unique<Arena>(std::move(pack), num_slots, backend, options, logger);
  PREGATE_RETURN_IF_ERROR(arena->Start());
  return absl::WrapUnique(new HostTier(std::move(arena)));
}

HostTier::HostTier(std::unique_ptr<Arena> arena) : arena_(std::move(arena)) {}
HostTier::~HostTier() = default;

const ExpertPackHeader& HostTier::header() const { return arena_->header(); }

void HostTier::Fetch(ExpertId id, bool is_urgent, Done done) {
  arena_->Fetch(id, is_urgent, std::move(done));
}

void HostTier::VisitStats(StatsVisitor& visitor) const { arena_->VisitStats(visitor); }

const ExpertPack& HostTier::pack() const { return arena_->pack(); }
bool HostTier::holds_all() const { return arena_->holds_all(); }
uint64_t HostTier::arena_bytes() const { return arena_->arena_bytes(); }

}  // namespace pregate
