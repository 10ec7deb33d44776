// An expert cache on a device that is stepped by hand, and everything that happens to it drawn from
// a seed.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "core/base/clock.h"
#include "core/base/mutex.h"
#include "core/expert/expert_cache.h"
#include "tests/support/manual_backend.h"

namespace pregate {

// What a user of the cache, or the cache itself, could do wrong.
enum class Mistake {
  kNone,
  kKernelSkipsReady,        // kernels do not wait for the copy of their expert
  kLeaseEndsBeforeKernel,   // kernels are given to the stream after their expert was given back
  kCopySkipsLastUse,        // copies do not wait for the kernels that still read the slot
  kCopyIntoLeasedSlot,      // copies go where an expert is leased
  kRecordReusedBeforeCopy,  // host memory is given back before it was copied
};

// The records of all experts in each of several encodings, which are answered when the schedule
// says so. A record that nobody pins is the host's to write, and the checker is told that it does.
class ScheduledRecords {
 public:
  ScheduledRecords(uint32_t num_layers,
                   uint32_t num_experts,
                   const std::vector<uint64_t>& record_bytes,
                   HazardChecker& checker,
                   Mistake mistake);
  ~ScheduledRecords();

  std::vector<RecordSource*> sources();
  absl::Span<const std::byte> record(uint32_t encoding, uint32_t expert) const;

  // What is fetched from now on waits, or is answered at once; one in `one_fails_of` fails.
  void SetHolding(bool is_holding) { is_holding_ = is_holding; }
  // It is answered at once, and used where it lies: it is not counted.
  void SetUnified(bool is_unified) { is_unified_ = is_unified; }
  void SetFailing(uint64_t one_fails_of) { one_fails_of_ = one_fails_of; }
  // The number of the latest fetch into a slot, of the latest of an expert (0: none), and of one
  // that waits, drawn at random (0: none).
  uint64_t num_fetches() const { return num_fetches_; }
  uint64_t last_fetch(uint32_t expert) const { return last_fetch_[expert]; }
  uint64_t AnyHeld(std::mt19937_64& random) const;
  bool is_held(uint64_t fetch) const { return held_.count(fetch) > 0; }
  void Answer(uint64_t fetch);

  uint64_t hinted_bytes() const { return hinted_bytes_; }  // fetched as a guess

  // --- for any thread ---

  // Records that somebody holds, each as often as it is held.
  uint64_t num_pins() const;
  // Somebody needs the expert.
  void Need(uint32_t expert);
  bool IsNeeded(uint32_t expert) const;
  // Whose record this is, and how much of it lies before `data`.
  struct Place {
    uint32_t expert;
    uint64_t offset;
    uint64_t record_bytes;
  };
  Place Find(const std::byte* data) const;

 private:
  class Encoding;
  struct Held {
    uint32_t encoding;
    uint32_t expert;
    RecordSource::Done done;
  };
  void OnFetch(uint32_t encoding, uint32_t expert, bool is_urgent, RecordSource::Done done);
  void Answer(const Held& fetch);
  void Unpin(uint32_t encoding, uint32_t expert);

  const uint32_t num_experts_;
  HazardChecker& checker_;
  const Mistake mistake_;
  std::vector<std::unique_ptr<Encoding>> encodings_;
  bool is_holding_ = true;
  bool is_unified_ = false;
  uint64_t one_fails_of_ = UINT64_MAX;
  uint64_t num_fetches_ = 0;
  uint64_t hinted_bytes_ = 0;
  uint64_t num_answers_ = 0;
  std::vector<uint64_t> last_fetch_;  // [experts]
  std::map<uint64_t, Held> held_;     // by number

  mutable Mutex mutex_;
  std::vector<bool> is_needed_ ABSL_GUARDED_BY(mutex_);                  // [experts]
  std::vector<std::vector<uint32_t>> num_pins_ ABSL_GUARDED_BY(mutex_);  // [encodings, experts]
};

// The streams of a ManualBackend; what is copied on those that others make is watched.
class WatchedBackend final : public Backend {
 public:
  WatchedBackend(ScheduledRecords& records, Mistake mistake, ManualBackend& device)
      : records_(records), mistake_(mistake), device_(device) {}

  absl::StatusOr<Buffer> Allocate(MemoryKind kind, size_t bytes) override {
    return device_.Allocate(kind, bytes);
  }
  absl::StatusOr<Buffer> Reserve(size_t bytes) override { return device_.Reserve(bytes); }
  absl::Status Commit(const Buffer& reserved, size_t offset, size_t bytes) override {
    return device_.Commit(reserved, offset, bytes);
  }
  absl::Status Decommit(const Buffer& reserved, size_t offset, size_t bytes) override {
    return device_.Decommit(reserved, offset, bytes);
  }
  absl::StatusOr<std::unique_ptr<Stream>> CreateStream(const std::string& name) override;
  bool is_host() const override { return true; }
  MemoryInfo memory() const override { return device_.memory(); }

  // Loads whose first, and whose last, piece is on the stream.
  uint64_t num_begun() const { return num_begun_; }
  uint64_t num_issued() const { return num_issued_; }
  // The most pieces of guesses that were ahead of something needed when it came to the stream.
  uint32_t most_hinted_ahead() const { return most_hinted_ahead_; }
  // Where copies go by mistake; null: where they should.
  void set_leased(std::byte* record) { leased_ = record; }

 private:
  class Copies;
  ScheduledRecords& records_;
  const Mistake mistake_;
  ManualBackend& device_;
  std::atomic<uint64_t> num_begun_ = 0;
  std::atomic<uint64_t> num_issued_ = 0;
  std::atomic<uint32_t> most_hinted_ahead_ = 0;
  std::atomic<std::byte*> leased_ = nullptr;
};

// One cache, two streams that compute, and up to three leases at a time. The seed decides what
// comes next: a user's call, an answer from disk, or a step of a stream. Only when exactly a
// shrinking cache gives its memory back is the transfer thread's to decide.
class CacheSchedule {
 public:
  explicit CacheSchedule(uint64_t seed, Mistake mistake = Mistake::kNone);
  ~CacheSchedule();

  // One thing happens, and the cache has taken note of it.
  void Step();
  // Ends all leases and runs everything; the cache then holds nothing.
  void Finish();

  // What has to hold after each step; says what does not.
  absl::Status Check() const;
  std::vector<Hazard> hazards() const { return device_.checker().hazards(); }
  ExpertCache::Snapshot Read() const { return cache_->Read(); }
  uint32_t most_hinted_ahead() const { return backend_.most_hinted_ahead(); }
  uint64_t num_kernels() const { return num_kernels_; }
  uint64_t num_failed() const { return num_failed_; }

 private:
  class Consumer;
  struct Lease;

  bool OneIn(uint64_t n) { return random_() % n == 0; }
  void StepStreams();
  void Acquire();
  void Yield(Lease& lease);
  void Use(Lease& lease, const ExpertLease::Expert& expert);
  // Until Next cannot wait for what only the schedule could do.
  void MakeServable(Lease& lease);
  void EndLease(size_t index);
  void Hint();
  void Change();
  // Until the transfer thread has noted all that is done, and given back what was copied.
  void Settle() const;
  void RunAll();

  mutable std::mt19937_64 random_;
  const Mistake mistake_;
  const RealClock clock_;
  mutable ManualBackend device_;
  ScheduledRecords records_;
  WatchedBackend backend_;
  std::vector<std::unique_ptr<Consumer>> consumers_;
  std::unique_ptr<ExpertCache> cache_;
  std::vector<std::unique_ptr<Lease>> leases_;
  bool is_unified_ = false;
  uint64_t num_kernels_ = 0;
  uint64_t num_failed_ = 0;
  mutable Mutex mutex_;
  absl::Status seen_ ABSL_GUARDED_BY(mutex_);  // what kernels saw that they should not
};

}  // namespace pregate
