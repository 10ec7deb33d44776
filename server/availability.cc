#include "server/availability.h"

#include <chrono>

#include "core/base/check.h"
#include "server/status.h"

namespace pregate {

void Availability::SetReady(Engine& engine) {
  MutexLock lock(mutex_);
  engine_ = &engine;
  if (state_ == State::kLoading) state_ = State::kReady;
}

void Availability::SetDraining() {
  MutexLock lock(mutex_);
  state_ = State::kDraining;
}

Availability::State Availability::state() const {
  MutexLock lock(mutex_);
  return state_;
}

absl::StatusOr<Engine*> Availability::engine() const {
  MutexLock lock(mutex_);
  switch (state_) {
    case State::kReady:
      return engine_;
    case State::kLoading:
      return WithRetryDelay(
          WithReason(absl::UnavailableError("the model is being loaded"), "LOADING"),
          std::chrono::seconds(1));
    case State::kDraining:
      return WithRetryDelay(
          WithReason(
              absl::UnavailableError("the server is shutting down: try another, or this one later"),
              "DRAINING"),
          std::chrono::seconds(5));
  }
  PREGATE_CHECK(false);
}

const Engine* Availability::loaded() const {
  MutexLock lock(mutex_);
  return engine_;
}

}  // namespace pregate
