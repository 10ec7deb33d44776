// Experts resident on the device, and everything needed to get them there.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/base/clock.h"
#include "core/base/stats.h"
#include "core/device/backend.h"
#include "core/expert/eviction_policy.h"
#include "core/expert/expert_id.h"
#include "core/expert/host_tier.h"

namespace pregate {

// How a look-up found its expert. The three are disjoint.
enum class Lookup {
  kHit,      // ready
  kLateHit,  // on its way already
  kMiss,
};

// A guess that an expert will be needed.
struct ExpertHint {
  ExpertId id;
  float probability = 1;  // of being needed the next time its layer runs
};

// What one Acquire asked for, yielded expert by expert. Move-only; used by one thread.
class ExpertLease {
 public:
  struct Expert {
    size_t index = 0;  // in the ids given to Acquire
    // Not OK names the expert and says why it could not be had; there is no record then. The others
    // of the lease are not concerned.
    absl::Status status;
    // The record [record_bytes]: unchanged and in place for what the consumer is given before the
    // next call of Next or NextGroup.
    const std::byte* record = nullptr;
    uint32_t encoding = 0;  // which of the cache's sources it came from
  };

  ExpertLease(ExpertLease&& other) noexcept;
  ExpertLease& operator=(ExpertLease&& other) noexcept;
  // Gives back what was not yielded and what was; no host wait.
  ~ExpertLease();

  // The next expert, resident ones first, then in the order in which they arrive or fail; nullopt
  // when each has been yielded once. The consumer's stream has been told to wait for its copy; the
  // host waits only while no further copy can be issued (a record still being read from disk, or
  // all slots in use by others). Yielding one gives back what was yielded before it.
  std::optional<Expert> Next();

  // As Next, but up to `most` (≥ 1) that can be computed at once: what is resident or has arrived,
  // else the next to arrive alone; empty when each has been yielded once. Valid until the next
  // call.
  absl::Span<const Expert> NextGroup(size_t most);

  // How each id of Acquire was found.
  absl::Span<const Lookup> lookups() const;
  // Of the misses.
  uint64_t demanded_bytes() const;
  // That Next has made the caller wait so far.
  Duration stall() const;

 private:
  friend class ExpertCache;
  struct State;
  explicit ExpertLease(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// Slots of device memory that hold one record each. Thread-safe. Never does I/O under its lock.
// Bytes seen through a lease do not change while they are leased.
//
// A slot goes Free → Loading → Ready → Free. Invariants, which Validate checks: an expert is in at
// most one slot; a slot in use is no victim; used and free slots are all slots; a load that failed
// leaves no visible expert and wakes all that wait for it with the same status; hinted loads never
// hold more than their budget; a needed load waits behind at most two pieces of hinted ones.
class ExpertCache {
 public:
  struct Options {
    uint32_t num_slots = 0;      // ≥ 1
    uint32_t max_num_slots = 0;  // what SetNumSlots may ask for; 0 = as many as there are experts
    std::string eviction = "ewma";
    // Hinted loads under way at a time, at most; 0 switches hints off.
    uint32_t max_hinted_loads = 8;
    // An expert's slot is given up as soon as its lease ends: no cache beyond the step.
    bool drop_after_use = false;
    // Needs no copies: the device reads the sources' memory. Every expert whose record is in host
    // memory is then resident; num_slots and hints mean nothing.
    bool is_unified = false;
  };

  // Where records come from, at least one; all of one shape of model. More than one: encodings of
  // different sizes, see SetEncoding. The references outlive the cache.
  static absl::StatusOr<std::unique_ptr<ExpertCache>> Create(std::vector<RecordSource*> sources,
                                                             Backend& backend,
                                                             const Clock& clock,
                                                             const Options& options);
  // Waits for copies under way, and for kernels that read unified memory. No lease may be left.
  ~ExpertCache();

  // The distinct experts that a step needs of one layer, for work on `consumer`. More ids than
  // there are slots are served in waves. Counts one look-up for each id. INVALID_ARGUMENT: no ids,
  // one out of range, or of different layers.
  absl::StatusOr<ExpertLease> Acquire(absl::Span<const ExpertId> ids, Stream& consumer);

  // Loads ahead of need, the first first. May be ignored in part or whole; never delays a needed
  // load by more than two pieces of 1 MiB, never evicts what is leased, expected by an earlier hint
  // that is still to come true, or worth more. Hinted loads that have not begun and are not among
  // `hints` are cancelled. Adds at most `max_loads`; returns how many it did.
  uint32_t Hint(absl::Span<const ExpertHint> hints, uint32_t max_loads = UINT32_MAX);
  void CancelHints();

  // Slots to be used from now on, 1 … max_num_slots. Returns at once; shrinking gives back one slot
  // after the other as they are free, then their memory. RESOURCE_EXHAUSTED: no memory for more.
  absl::Status SetNumSlots(uint32_t num_slots);
  absl::Status SetEviction(absl::string_view name);
  void SetEviction(std::unique_ptr<EvictionPolicy> policy);
  void SetMaxHintedLoads(uint32_t max_hinted_loads);
  void SetDropAfterUse(bool drop_after_use);
  // Which source later loads take: its index. Of what is resident in the encoding of a higher index
  // one after another is loaded anew when it is looked up, in at most one part in kRefreshShare of
  // the time.
  static constexpr uint32_t kRefreshShare = 20;
  void SetEncoding(uint32_t source);
  // See Options::is_unified; for later calls of Acquire.
  void SetUnified(bool is_unified);
  // Forgets every expert that is not leased.
  void Reset();

  // What one record takes on the link, a moving average of the loads so far; 0 before the first.
  double load_seconds() const;

  struct SlotCounts {
    uint32_t free = 0;
    uint32_t loading = 0;
    uint32_t ready = 0;
  };
  // Bytes of hinted loads by what became of them; issued = the sum of all five.
  struct HintedBytes {
    uint64_t useful = 0;     // there in time
    uint64_t late = 0;       // under way when needed
    uint64_t wasted = 0;     // evicted unused, or failed
    uint64_t cancelled = 0;  // never copied
    uint64_t pending = 0;    // none of these yet
  };
  // What a prefetcher steers by: less than a Snapshot, and quick to read.
  struct Pace {
    double load_seconds = 0;  // as load_seconds()
    double stall_seconds = 0;
    uint64_t demanded_bytes = 0;
    HintedBytes hinted;
  };
  Pace ReadPace() const;
  struct Snapshot {
    uint32_t num_slots = 0;  // wanted
    SlotCounts slots;        // there are; more than wanted while shrinking
    uint64_t slot_bytes = 0;
    uint64_t resident_bytes = 0;
    uint64_t evictions = 0;
    std::array<uint64_t, 3> lookups = {};                // by Lookup
    std::vector<std::array<uint64_t, 3>> layer_lookups;  // [num_layers]
    HintedBytes hinted;
    uint64_t demanded_bytes = 0;
    double stall_seconds = 0;
    std::vector<ExpertId> resident;  // Ready, ascending
  };
  Snapshot Read() const;

  // INTERNAL names the invariant that does not hold.
  absl::Status Validate() const;

  // The expert-cache metrics of docs/metrics.md.
  void VisitStats(StatsVisitor& visitor) const;

 private:
  friend class ExpertLease;
  class Slots;
  explicit ExpertCache(std::unique_ptr<Slots> slots);
  std::unique_ptr<Slots> slots_;
};

}  // namespace pregate
