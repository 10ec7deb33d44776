// The arena behind HostTier: its memory, the records in it, and the threads that read them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <tuple>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "core/base/log.h"
#include "core/base/mutex.h"
#include "core/base/stats.h"
#include "core/base/thread.h"
#include "core/device/backend.h"
#include "core/expert/expert_id.h"
#include "core/expert/host_tier.h"
#include "core/storage/expert_pack.h"

namespace pregate {

// Slots of a record's stride each. A record is Absent → Queued → Reading → Ready → Absent; in a
// slot while it is Reading or Ready; a victim only when Ready and not pinned. With as many slots as
// records none is ever a victim. Thread-safe but for Start.
class HostTier::Arena {
 public:
  Arena(ExpertPack pack,
        uint64_t num_slots,
        Backend& backend,
        const Options& options,
        const Logger& logger);
  ~Arena();

  // Takes the memory and starts the readers; with room for all records, returns once each of them
  // has been read or given up. Called once, before all else.
  absl::Status Start();

  void Fetch(ExpertId id, bool is_urgent, Done done);
  void VisitStats(StatsVisitor& visitor) const;

  const ExpertPack& pack() const { return pack_; }
  const ExpertPackHeader& header() const { return pack_.header(); }
  bool holds_all() const { return num_slots_ == pack_.num_records(); }
  uint64_t arena_bytes() const { return num_slots_ * stride_; }

 private:
  enum class State { kAbsent, kQueued, kReading, kReady };
  static constexpr uint32_t kNone = UINT32_MAX;
  // Urgent ones first, of these the first that was asked for.
  using Place = std::tuple<bool /*is not urgent*/, uint64_t /*turn*/, uint32_t /*record*/>;

  struct Record {
    State state = State::kAbsent;
    uint32_t slot = kNone;
    uint32_t num_pins = 0;
    uint32_t older = kNone;     // neighbours among the Ready ones by when they were last fetched
    uint32_t newer = kNone;     // (kNone at the ends)
    Place place;                // in queue_, when Queued
    std::vector<Done> waiters;  // when Queued or Reading
  };
  struct Read {
    uint32_t record = 0;
    uint32_t slot = 0;
  };

  absl::Status Allocate();
  absl::StatusOr<Buffer> AllocatePiece(uint64_t bytes);
  // What readers do while the arena fills, and then for as long as it lives.
  void Fill();
  void Serve();

  // The first of `count` records that nobody has begun to read; nullopt when there is none.
  std::optional<uint32_t> NextFill(uint32_t& count);
  void OnFilled(uint32_t first, absl::Span<const absl::Status> statuses);
  void AwaitFill();

  std::optional<Read> NextRead();
  // `status` of the first attempt, or if it failed, of the last one allowed. Counts the read.
  absl::Status Retry(const Read& read, absl::Status status);
  void OnRead(const Read& read, const absl::Status& status);

  bool HasSlot() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  uint32_t TakeSlot() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Enqueue(uint32_t record, bool is_urgent) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void MakeReady(uint32_t record, uint32_t slot) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void LinkNewest(uint32_t record) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Unlink(uint32_t record) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  HostRecord Pinned(const Read& read, bool from_disk);
  void Unpin(uint32_t record);
  absl::Span<std::byte> Strides(uint32_t slot, uint32_t count) const;
  ExpertId Id(uint32_t record) const {
    return ExpertId::FromFlat(record, pack_.header().num_experts);
  }

  const ExpertPack pack_;
  Backend& backend_;
  const Options options_;
  const Logger& logger_;
  const uint64_t stride_;
  const uint64_t num_slots_;
  const uint64_t slots_per_piece_;
  std::vector<Buffer> pieces_;  // each written once, before num_slots_there_ counts its slots
  MemoryKind kind_ = MemoryKind::kPinned;  // Start's alone

  Counter reads_ok_;
  Counter reads_retried_;
  Counter reads_failed_;

  mutable Mutex mutex_;
  CondVar has_read_;      // something in queue_ and a slot for it, or the end
  CondVar fill_changed_;  // memory or records have come, or the end
  bool is_closing_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<Record> records_ ABSL_GUARDED_BY(mutex_);
  std::set<Place> queue_ ABSL_GUARDED_BY(mutex_);
  uint64_t turn_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<uint32_t> free_slots_ ABSL_GUARDED_BY(mutex_);
  uint32_t oldest_ ABSL_GUARDED_BY(mutex_) = kNone;
  uint32_t newest_ ABSL_GUARDED_BY(mutex_) = kNone;
  uint64_t num_ready_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t num_pinned_ ABSL_GUARDED_BY(mutex_) = 0;  // of the ready ones
  uint64_t num_slots_there_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t num_fill_begun_ ABSL_GUARDED_BY(mutex_) = 0;  // records, in their order
  uint64_t num_fill_done_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t num_fill_failed_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status fill_status_ ABSL_GUARDED_BY(mutex_);  // of the first that was given up
  std::vector<std::unique_ptr<Thread>> readers_;      // last: they use all of the above
};

}  // namespace pregate
