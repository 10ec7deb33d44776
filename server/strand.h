// One call's work on the shared pool, a run at a time.
#pragma once

#include <functional>

#include "core/base/mutex.h"
#include "core/base/thread.h"

namespace pregate {

// Runs `advance` on the pool whenever it was poked, never twice at once; pokes that come before a
// run begins count as one. So what `advance` uses needs no lock, and the threads that poke (gRPC's,
// the engine's) never wait. Thread-safe.
class Strand {
 public:
  // The pool has room for a task of every strand that there can be.
  Strand(ThreadPool& pool, std::function<void()> advance);

  void Poke();

  // No poke comes after this. Calls `destroy`, which may destroy the strand, when no run is under
  // way or to come: now, or at the end of the last run. Once.
  void Retire(std::function<void()> destroy);

 private:
  void Run();

  ThreadPool& pool_;
  const std::function<void()> advance_;

  Mutex mutex_;
  bool poked_ ABSL_GUARDED_BY(mutex_) = false;
  bool running_ ABSL_GUARDED_BY(mutex_) = false;  // or queued
  std::function<void()> destroy_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace pregate
