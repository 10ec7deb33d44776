// The engine's one thread: takes requests in, runs steps, hands tokens out.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/base/mutex.h"
#include "core/base/thread.h"
#include "core/engine/engine_load.h"
#include "core/engine/engine_stats.h"
#include "core/engine/model_runner.h"
#include "core/engine/scheduler.h"

namespace pregate {

// A step is never interrupted: cancels, deadlines and shutdown count at the next step boundary. The
// thread sleeps while there are no requests; while there are any, a step is always possible, so
// nothing ever waits for a time to come. Thread-safe.
class EngineLoop {
 public:
  struct Options {
    uint32_t max_batch_tokens = 0;  // ≥ 1
    uint32_t max_running = 0;       // ≥ 1
    uint32_t max_queued = 0;        // requests beyond those that can run at once
  };

  // `runner`, `clock` and `logger` outlive the loop.
  EngineLoop(const Options& options, ModelRunner& runner, const Clock& clock, const Logger& logger);
  // Cuts what is still running with UNAVAILABLE.
  ~EngineLoop();

  // Queues a request that is valid (ValidateRequest) and whose prompt + max_tokens fit into the
  // runner's KV blocks. RESOURCE_EXHAUSTED: the queue is full. UNAVAILABLE: shutting down.
  // health()'s status when that is not OK.
  absl::StatusOr<std::shared_ptr<ResponseStream>> Submit(Request request);

  // Refuses new requests and returns when all streams have ended; those that have not at the first
  // step boundary at or after `deadline` end with UNAVAILABLE. May be called again: the earliest
  // deadline counts.
  void Shutdown(TimePoint deadline);

  EngineLoad load() const;
  // INTERNAL after a step that failed with DATA_LOSS (ModelRunner::Run): all streams have ended
  // with this status, and no step runs any more.
  absl::Status health() const;
  void VisitStats(StatsVisitor& visitor) const;

 private:
  void Run();
  bool TakeSubmitted();
  void Step();
  void OnStepFailed(const absl::Status& status, TimePoint now);
  void Settle();
  TimePoint cut_at() const;

  const uint32_t max_queued_;
  ModelRunner& runner_;
  const Clock& clock_;
  const Logger& logger_;
  EngineStats stats_;
  Scheduler scheduler_;  // the engine thread's alone
  std::atomic<uint64_t> next_id_{0};

  mutable Mutex mutex_;
  CondVar changed_;  // submitted_, closed_ or ended_
  std::vector<std::unique_ptr<Sequence>> submitted_ ABSL_GUARDED_BY(mutex_);
  uint32_t room_ ABSL_GUARDED_BY(mutex_);    // how many submitted_ may hold
  EngineLoad load_ ABSL_GUARDED_BY(mutex_);  // without submitted_
  absl::Status health_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  TimePoint cut_at_ ABSL_GUARDED_BY(mutex_) = TimePoint::max();
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;  // closed, and the last stream has ended

  Thread thread_;  // last: it uses all of the above
};

}  // namespace pregate
