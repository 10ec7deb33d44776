// Ctrl-C as a call instead of an end.
#pragma once

#include <functional>
#include <optional>

#include "core/base/thread.h"

namespace pregate {

// From its construction to the end of the program SIGINT no longer ends it; while this lives, each
// one calls `on_interrupt`, on a thread of its own. One a program, made before any other thread
// (the gRPC library's among them): they must inherit that the signal is blocked.
class Interrupts {
 public:
  explicit Interrupts(std::function<void()> on_interrupt);
  // No call is running or will come once this returns.
  ~Interrupts();
  Interrupts(const Interrupts&) = delete;
  Interrupts& operator=(const Interrupts&) = delete;

 private:
  void Watch();

  const std::function<void()> on_interrupt_;
  const int signals_;  // signalfd
  const int stop_;     // eventfd
  std::optional<Thread> watcher_;
};

}  // namespace pregate
