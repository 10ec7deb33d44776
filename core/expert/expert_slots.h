// The inside of ExpertCache: slots, loads and leases under one lock.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/base/mutex.h"
#include "core/base/stats.h"
#include "core/base/thread.h"
#include "core/device/slab.h"
#include "core/expert/expert_cache.h"
#include "core/expert/transfer_queue.h"

namespace pregate {

// Getting one expert into one slot, from the fetch of its record to the end of its copy. Guarded by
// the lock of the slots.
struct ExpertLoad {
  uint32_t expert = 0;  // flat; this and the next three do not change
  uint32_t slot = 0;
  uint32_t encoding = 0;
  bool began_urgent = false;
  bool is_urgent = false;     // somebody needs it
  bool is_hinted = false;     // began as a hint; its bytes are counted there
  bool is_cancelled = false;  // the slot is another's; drop what comes
  bool from_disk = false;
  TimePoint begun;
  std::shared_ptr<Transfer> transfer;  // null while the record is fetched
  uint64_t issued_as = 0;              // order among the loads whose copies have been issued
  absl::Status status;                 // not OK: failed
};

struct ExpertLease::State {
  struct Item {
    uint32_t expert = 0;  // flat
    enum class Stage { kResident, kLoading, kWaiting, kYielded } stage = Stage::kWaiting;
    uint32_t slot = 0;                 // from kResident or kLoading on
    std::shared_ptr<ExpertLoad> load;  // kLoading
    uint32_t encoding = 0;
    // What the slot said when Next took the item.
    absl::Status status;
    Event ready;
    // Without slots: the record, once it is there, or why it will not be.
    State* lease = nullptr;
    std::optional<absl::StatusOr<HostRecord>> record;
  };
  ExpertCache::Slots* slots = nullptr;
  Stream* consumer = nullptr;
  bool is_unified = false;
  std::vector<Item> items;
  std::vector<Lookup> lookups;
  std::vector<Expert> in_use;  // what was yielded last
  size_t num_left = 0;         // not yielded
  uint32_t num_fetching = 0;   // records under way, without slots
  uint64_t demanded_bytes = 0;
  Duration stall = {};
};

class ExpertCache::Slots {
 public:
  using LeaseState = ExpertLease::State;

  Slots(std::vector<RecordSource*> sources, const Clock& clock, const Options& options);
  ~Slots();
  absl::Status Open(Backend& backend, std::unique_ptr<EvictionPolicy> policy);

  absl::StatusOr<std::unique_ptr<LeaseState>> Acquire(absl::Span<const ExpertId> ids,
                                                      Stream& consumer);
  absl::Span<const ExpertLease::Expert> NextGroup(LeaseState& lease, size_t most);
  void EndLease(std::unique_ptr<LeaseState> lease);

  uint32_t Hint(absl::Span<const ExpertHint> hints, uint32_t max_loads);
  absl::Status SetNumSlots(uint32_t num_slots);
  void SetPolicy(std::unique_ptr<EvictionPolicy> policy);
  void SetMaxHintedLoads(uint32_t max_hinted_loads);
  void SetDropAfterUse(bool drop_after_use);
  void SetEncoding(uint32_t source);
  void SetUnified(bool is_unified);
  void Reset();

  double load_seconds() const;
  Pace ReadPace() const;
  Snapshot Read() const;
  absl::Status Validate() const;
  void VisitStats(StatsVisitor& visitor) const;
  void VisitLoads(StatsVisitor& visitor) const;
  EvictionShape shape() const { return {.num_layers = num_layers_, .num_experts = num_experts_}; }

 private:
  static constexpr uint32_t kNone = UINT32_MAX;

  // The point of a consumer's stream behind its last kernel that reads something.
  struct Use {
    const Stream* consumer = nullptr;
    Event done;
  };
  // What a consumer without slots gave back and its kernels may still read.
  struct LentRecord {
    Event done;
    HostRecord record;
  };

  struct Slot {
    enum class State { kFree, kLoading, kReady } state = State::kFree;
    uint32_t expert = kNone;  // flat; kNone when free, or when what it holds is not to be found
    uint32_t encoding = 0;
    uint32_t pins = 0;
    Event ready;                       // behind the copy into it, until its end was noted
    std::vector<Use> last_uses;        // one of each consumer that has used it of late
    std::shared_ptr<ExpertLoad> load;  // kLoading
    bool is_unused_hint = false;       // loaded by a hint and not needed yet
  };

  // --- look-ups and leases ---
  absl::Status CheckIds(absl::Span<const ExpertId> ids) const;
  std::unique_ptr<LeaseState> TakeLease(Stream& consumer, size_t num_ids)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Is it resident in an encoding that is to be replaced now?
  bool IsToBeRefreshed(const Slot& slot) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Lookup LookUp(LeaseState::Item& item) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void BeginLayer(uint32_t layer, const LeaseState& lease) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Gives waiting items slots, as far as there are any. Their fetches are to be started once the
  // lock is released.
  void StartWaiting(LeaseState& lease, std::vector<std::shared_ptr<ExpertLoad>>& to_fetch)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The item that Next yields, if one can be: ready, issued or failed.
  LeaseState::Item* FindNext(LeaseState& lease) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void GiveBack(LeaseState::Item& item) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  static void NoteUse(Slot& slot, const Stream* consumer, Event done);
  // Would Next yield it without waiting for a copy?
  bool IsAtHand(const LeaseState& lease, const LeaseState::Item& item) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // What was yielded last is in use no longer.
  void ReleaseLast(LeaseState& lease);
  // Without slots: records that were yielded last stay until `used` has passed.
  void LendRecords(LeaseState& lease, const Event& used);
  // Fills in_use, as far as the lock is needed for it. True: they were resident.
  bool AwaitNext(LeaseState& lease, size_t most);
  void Take(LeaseState& lease, LeaseState::Item& item) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The rest of what in_use says: told to wait for its copy, it is the consumer's.
  void HandOver(LeaseState& lease, ExpertLease::Expert& expert);
  void FetchUnified(LeaseState& lease, absl::Span<const ExpertId> ids);
  void AwaitRecords(const LeaseState& lease);
  void OnRecord(LeaseState::Item& item, absl::StatusOr<HostRecord> record);

  // --- loads ---
  void Fetch(const std::shared_ptr<ExpertLoad>& load);
  void OnFetched(const std::shared_ptr<ExpertLoad>& load, absl::StatusOr<HostRecord> record);
  std::shared_ptr<ExpertLoad> BeginLoad(uint32_t expert, uint32_t slot, bool is_urgent)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void NoteIssued(ExpertLoad& load) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // A loading slot whose copy is done becomes ready.
  void FinishLoad(Slot& slot) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void FailLoad(ExpertLoad& load, absl::Status status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // False when its copy has begun.
  bool CancelLoad(ExpertLoad& load) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The bytes of a hint that was pending become `outcome`, one of hinted_'s.
  void SettleHint(Slot& slot, uint64_t& outcome) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RunTransfers();
  void CountLoad(const ExpertLoad& load, TimePoint begun, TimePoint ended)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // --- slots ---
  uint32_t FindFreeSlot() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // A slot for an expert that is needed, or kNone.
  uint32_t TakeSlot() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // A slot for a hint, which takes less, or kNone.
  uint32_t TakeSlotForHint(float probability) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  uint32_t FindVictim(bool for_hint) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Makes a ready slot that nobody leases free.
  void Evict(uint32_t slot) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Without a cache beyond the step: evicts what was used and is in use no longer.
  void DropUsed(uint32_t slot) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void FreeSlot(Slot& slot) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool IsExpected(uint32_t expert) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Empties what lies behind the slots that are wanted, as far as it is not in use.
  void Drain() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Gives back the memory of slots that are to go once all of them are empty. True, with the event,
  // when one is still being read.
  bool FindDrained(Event& in_use) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The record that was lent first, to be kept until its event; false when there is none.
  bool TakeLent(LentRecord& lent) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::byte* Address(uint32_t slot) const { return slab_->slot(slot); }
  uint64_t RecordBytes(uint32_t encoding) const {
    return sources_[encoding]->header().record_bytes;
  }

  const std::vector<RecordSource*> sources_;
  const Clock& clock_;
  const uint32_t num_layers_;
  const uint32_t num_experts_;
  const uint32_t max_num_slots_;
  std::unique_ptr<Stream> copy_stream_;

  mutable Mutex mutex_;
  CondVar changed_;   // a load was issued or failed, a slot can be had, a record came
  CondVar has_work_;  // for the transfer thread
  std::unique_ptr<Slab> slab_;
  std::unique_ptr<TransferQueue> transfers_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<EvictionPolicy> policy_ ABSL_GUARDED_BY(mutex_);
  std::vector<Slot> slots_ ABSL_GUARDED_BY(mutex_);
  std::vector<uint32_t> slot_of_ ABSL_GUARDED_BY(mutex_);      // [experts], kNone: in no slot
  std::vector<uint64_t> layer_runs_ ABSL_GUARDED_BY(mutex_);   // [layers]: Acquires so far
  std::vector<uint64_t> expected_in_ ABSL_GUARDED_BY(mutex_);  // [experts]: run of its layer + 1
  std::vector<std::unique_ptr<LeaseState>> idle_leases_ ABSL_GUARDED_BY(mutex_);
  std::deque<LentRecord> lent_ ABSL_GUARDED_BY(mutex_);       // in the order in which it came back
  std::vector<uint32_t> flat_ids_ ABSL_GUARDED_BY(mutex_);    // scratch
  std::vector<uint32_t> candidates_ ABSL_GUARDED_BY(mutex_);  // scratch
  std::vector<float> worth_ ABSL_GUARDED_BY(mutex_);          // scratch

  uint32_t wanted_slots_ ABSL_GUARDED_BY(mutex_);
  uint32_t max_hinted_loads_ ABSL_GUARDED_BY(mutex_);
  uint32_t hinted_loads_ ABSL_GUARDED_BY(mutex_) = 0;           // under way
  std::vector<uint32_t> hinted_slots_ ABSL_GUARDED_BY(mutex_);  // of them, and some that ended
  bool drop_after_use_ ABSL_GUARDED_BY(mutex_);
  bool is_unified_ ABSL_GUARDED_BY(mutex_);
  uint32_t encoding_ ABSL_GUARDED_BY(mutex_) = 0;
  TimePoint refreshed_ ABSL_GUARDED_BY(mutex_);  // when one was loaded anew for its encoding
  uint64_t next_issue_ ABSL_GUARDED_BY(mutex_) = 1;
  uint32_t fetches_ ABSL_GUARDED_BY(mutex_) = 0;  // whose Done has not come back
  bool is_closing_ ABSL_GUARDED_BY(mutex_) = false;

  // --- what is counted ---
  std::vector<std::array<uint64_t, 3>> layer_lookups_ ABSL_GUARDED_BY(mutex_);
  uint64_t evictions_ ABSL_GUARDED_BY(mutex_) = 0;
  HintedBytes hinted_ ABSL_GUARDED_BY(mutex_);
  uint64_t demanded_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  // [from host or disk][by need or hint]
  std::array<std::array<uint64_t, 2>, 2> loaded_bytes_ ABSL_GUARDED_BY(mutex_) = {};
  Duration stall_ ABSL_GUARDED_BY(mutex_) = {};
  double load_seconds_ ABSL_GUARDED_BY(mutex_) = 0;
  double load_bytes_ ABSL_GUARDED_BY(mutex_) = 0;    // of a load, averaged as load_seconds_ is
  double link_seconds_ ABSL_GUARDED_BY(mutex_) = 0;  // that the link was busy
  TimePoint opened_;
  std::array<Histogram, 2> load_histogram_;  // host, disk

  std::unique_ptr<Thread> transfer_thread_;  // last: it uses all of the above
};

}  // namespace pregate
