// Whether the server takes work: loading → ready → draining.
#pragma once

#include "absl/status/statusor.h"
#include "core/base/mutex.h"
#include "core/pregate.h"

namespace pregate {

// Thread-safe. The engine outlives every call that was given it.
class Availability {
 public:
  enum class State { kLoading, kReady, kDraining };

  // Takes work from here on. `engine` outlives the gRPC server's calls.
  void SetReady(Engine& engine);
  // Takes no more work; comes after kReady or instead of it.
  void SetDraining();

  State state() const;
  // The engine, for new work. UNAVAILABLE with a retry delay while loading or draining.
  absl::StatusOr<Engine*> engine() const;
  // The engine, to look at; null while loading.
  const Engine* loaded() const;

 private:
  mutable Mutex mutex_;
  State state_ ABSL_GUARDED_BY(mutex_) = State::kLoading;
  Engine* engine_ ABSL_GUARDED_BY(mutex_) = nullptr;
};

}  // namespace pregate
