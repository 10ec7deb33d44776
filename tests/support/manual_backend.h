// A device whose operations happen when the test says so, and are checked for hazards.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/base/mutex.h"
#include "core/device/backend.h"
#include "tests/support/hazard_checker.h"

namespace pregate {

class ManualStream;

// Streams are queues; an operation is a copy, a kernel, a wait or a record. Nothing runs before it
// is stepped or somebody waits for it. All memory is the host's, with a limit of its own; what was
// just allocated or decommitted is full of garbage. Thread-safe.
class ManualBackend final : public Backend {
 public:
  // What becomes of a thread that waits for an event, or for a stream.
  enum class Waiting {
    kRunsWork,  // it runs what the event depends on, in the order of issue, and nothing else
    kBlocks,    // it sleeps until other threads have stepped so far
  };

  explicit ManualBackend(Waiting waiting = Waiting::kRunsWork,
                         uint64_t memory_bytes = uint64_t{64} << 20)
      : total_bytes_(memory_bytes), waiting_(waiting) {}

  absl::StatusOr<Buffer> Allocate(MemoryKind kind, size_t bytes) override;
  absl::StatusOr<Buffer> Reserve(size_t bytes) override;
  absl::Status Commit(const Buffer& reserved, size_t offset, size_t bytes) override;
  absl::Status Decommit(const Buffer& reserved, size_t offset, size_t bytes) override;
  absl::StatusOr<std::unique_ptr<Stream>> CreateStream(const std::string& name) override;
  MemoryInfo memory() const override;
  bool is_host() const override { return true; }

  std::unique_ptr<ManualStream> MakeStream(const std::string& name);
  // The stream of that name, which somebody else has made; null when there is none.
  ManualStream* FindStream(const std::string& name);

  // One step of each stream, in the order in which they were made; how many could take one.
  size_t StepAll();
  // Steps streams drawn at random until none has work. How many steps that took.
  size_t RunUntilIdle(uint64_t seed);

  // Threads that sleep take part at once.
  void SetWaiting(Waiting waiting);
  // Threads that sleep until more is stepped.
  size_t num_sleeping() const;

  // Knows of all copies, kernels, events and memory; accesses of the host are to be told to it.
  HazardChecker& checker() { return checker_; }

 private:
  friend class ManualStream;
  class PendingEvent;

  absl::Status Take(MemoryKind kind, uint64_t bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RunThrough(const PendingEvent& event) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const uint64_t total_bytes_;
  HazardChecker checker_;  // its lock is the only one taken under mutex_
  mutable Mutex mutex_;
  CondVar changed_;  // an event has passed, waiting_ is another
  Waiting waiting_ ABSL_GUARDED_BY(mutex_);
  size_t num_sleeping_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t used_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  // Which units of a reservation are there.
  std::map<const std::byte*, std::vector<bool>> committed_ ABSL_GUARDED_BY(mutex_);
  std::vector<ManualStream*> streams_ ABSL_GUARDED_BY(mutex_);
};

class ManualStream final : public Stream {
 public:
  // Runs its work, and what that depends on, whichever way threads wait.
  ~ManualStream() override;

  void CopyAsync(std::byte* to, const std::byte* from, size_t bytes) override;
  Event Record() override;
  // `event` is of this backend.
  void Wait(const Event& event) override;
  absl::Status Synchronize() override;

  // Work that is said to read and write these ranges. `body`, if any, is run under the backend's
  // lock: it must not call the backend.
  void Kernel(const std::string& name,
              const std::vector<MemoryRange>& reads,
              const std::vector<MemoryRange>& writes,
              std::function<void()> body = nullptr);

  // Runs the oldest operation. False: there is none, or it waits for an event that has not passed.
  bool Step();
  // Operations that have not been run.
  size_t pending() const;

  // The next copy to be run leaves garbage where it should write; `status` is the stream's error.
  void FailNextCopy(absl::Status status);

 private:
  friend class ManualBackend;
  struct Copy {
    std::byte* to;
    const std::byte* from;
    size_t bytes;
  };
  struct Pass {
    std::shared_ptr<ManualBackend::PendingEvent> event;
  };
  using Operation = std::variant<Copy, std::function<void()>, Event, Pass>;  // Event: wait for it

  ManualStream(ManualBackend& backend, std::string name);
  // "copy 3 of 'loads'"
  std::string NextName(const std::string& what) ABSL_EXCLUSIVE_LOCKS_REQUIRED(backend_.mutex_);
  // The event that keeps the stream from stepping; null when none does.
  const ManualBackend::PendingEvent* HeldBy() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(backend_.mutex_);
  bool CanStep() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(backend_.mutex_);
  void RunOldest() ABSL_EXCLUSIVE_LOCKS_REQUIRED(backend_.mutex_);

  ManualBackend& backend_;
  const std::string name_;
  const HazardChecker::Actor actor_;
  std::deque<Operation> pending_ ABSL_GUARDED_BY(backend_.mutex_);
  uint64_t num_issued_ ABSL_GUARDED_BY(backend_.mutex_) = 0;
  absl::Status error_ ABSL_GUARDED_BY(backend_.mutex_);
  std::optional<absl::Status> next_failure_ ABSL_GUARDED_BY(backend_.mutex_);
};

}  // namespace pregate
