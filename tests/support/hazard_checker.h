// Finds accesses to memory that nothing orders, whatever order they happened to run in.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "core/base/mutex.h"

namespace pregate {

struct MemoryRange {
  const std::byte* data = nullptr;
  size_t bytes = 0;
};

// Two accesses to the same bytes, at least one of which writes, where neither has to come after the
// other; or one to reserved memory that is not committed.
struct Hazard {
  enum class Kind { kReadOfWrite, kWriteOfRead, kWriteOfWrite, kMissingMemory } kind;
  std::string earlier;  // in the order of issue; empty for kMissingMemory
  std::string later;
  MemoryRange range;

  std::string ToString() const;
};

// A vector clock for each stream and one for the host, and for each byte its last writer and those
// who have read it since (as in FastTrack, Flanagan and Freund, PLDI 2009).
//
// It is told of operations in the order in which they are *issued*, and judges each then: what a
// stream's operation comes after is settled by its issue. That is the work issued on the stream
// before it, the work before each event that the stream was told to wait for, and what the host had
// done or seen done. No lucky order of execution hides a hazard, and none that is still pending is
// missed.
//
// All threads of the host are one actor, so order between them is not judged here (it is
// ThreadSanitizer's to find), and an event that any of them has seen pass is known to all.
// Thread-safe.
class HazardChecker {
 public:
  using Actor = size_t;
  static constexpr Actor kHost = 0;
  // By actor: how many of its operations are known to be done. Missing ones are 0.
  using Clock = std::vector<uint64_t>;

  Actor AddStream();

  // An operation of a stream. `name` is what a hazard calls it.
  void OnOperation(Actor stream,
                   absl::string_view name,
                   const std::vector<MemoryRange>& reads,
                   const std::vector<MemoryRange>& writes);
  // What an event that is recorded now stands for.
  Clock OnRecord(Actor stream);
  void OnWait(Actor stream, const Clock& event);

  // The host saw an event pass.
  void OnHostSees(const Clock& event);
  // Accesses of the host, now.
  void OnHostRead(MemoryRange range, absl::string_view name);
  void OnHostWrite(MemoryRange range, absl::string_view name);

  // Addresses without memory; memory that comes; memory that goes, which writes it.
  void OnReserve(MemoryRange range);
  void OnCommit(MemoryRange range);
  void OnDecommit(MemoryRange range, absl::string_view name);
  // Addresses that go with all that is known of them, which writes what was committed.
  void OnRelease(MemoryRange range, absl::string_view name);

  // In the order in which they were found; one for two operations and a run of bytes.
  std::vector<Hazard> hazards() const;
  // FAILED_PRECONDITION tells how many and the first.
  absl::Status status() const;

 private:
  struct Access {
    Actor actor;
    uint64_t count;  // of the actor's clock
    std::shared_ptr<const std::string> name;
  };
  struct Bytes {
    uintptr_t end;
    std::optional<Access> write;
    std::vector<Access> reads;  // since the write, one of each actor
    bool is_missing = false;    // reserved, not committed
  };

  Access Begin(Actor actor, absl::string_view name) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Join(Actor actor, const Clock& other) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Does what `actor` does now come after the access?
  bool IsBehind(Actor actor, const Access& access) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Read(const Access& access, MemoryRange range) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Write(const Access& access, MemoryRange range) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Decommit(MemoryRange range, absl::string_view name) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Add(Hazard hazard) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // What is known of the range, in pieces that make it up exactly.
  std::vector<std::pair<MemoryRange, Bytes*>> PiecesOf(MemoryRange range)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SplitAt(uintptr_t address) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  mutable Mutex mutex_;
  std::vector<Clock> clocks_ ABSL_GUARDED_BY(mutex_) = {{0}};  // by actor
  std::map<uintptr_t, Bytes> bytes_ ABSL_GUARDED_BY(mutex_);   // by where they begin
  std::vector<Hazard> hazards_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace pregate
