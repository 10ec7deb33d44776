// Threads that have a name and are always joined.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "core/base/queue.h"

namespace pregate {

// Runs a function on a thread of its own; the destructor joins it. The name is what debuggers and
// `top -H` show (15 characters).
class Thread {
 public:
  Thread(const std::string& name, std::function<void()> body);
  ~Thread();
  Thread(const Thread&) = delete;
  Thread& operator=(const Thread&) = delete;

 private:
  std::thread thread_;
};

// A few threads that run short tasks in the order they were given. Thread-safe.
class ThreadPool {
 public:
  // `capacity` bounds the tasks that wait.
  ThreadPool(const std::string& name, size_t threads, size_t capacity);
  // Runs what is still queued, then joins.
  ~ThreadPool();

  // False when the queue is full or the pool is being destroyed; the task is then not run.
  bool TryRun(std::function<void()> task);

 private:
  BoundedQueue<std::function<void()>> tasks_;
  std::vector<std::unique_ptr<Thread>> threads_;
};

}  // namespace pregate
