// Time that moves when the test says so.
#pragma once

#include <atomic>
#include <chrono>

#include "core/base/clock.h"

namespace pregate {

// Begins an hour into its epoch, so that a time before its start can be told. Thread-safe.
class FakeClock final : public Clock {
 public:
  TimePoint Now() const override { return TimePoint(Duration(now_.load())); }
  void Advance(Duration by) { now_.fetch_add(by.count()); }

 private:
  std::atomic<Duration::rep> now_{Duration(std::chrono::hours(1)).count()};
};

}  // namespace pregate
