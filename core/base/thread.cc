#include "core/base/thread.h"

#include <pthread.h>

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"

namespace pregate {

Thread::Thread(const std::string& name, std::function<void()> body)
    : thread_([name = name.substr(0, 15), body = std::move(body)] {
        pthread_setname_np(pthread_self(), name.c_str());
        body();
      }) {}

Thread::~Thread() { thread_.join(); }

ThreadPool::ThreadPool(const std::string& name, size_t threads, size_t capacity)
    : tasks_(capacity) {
  for (size_t i = 0; i < threads; ++i) {
    threads_.push_back(std::make_unique<Thread>(absl::StrCat(name, "-", i), [this] {
      while (std::optional<std::function<void()>> task = tasks_.Pop()) (*task)();
    }));
  }
}

ThreadPool::~ThreadPool() {
  tasks_.Close();
  threads_.clear();
}

bool ThreadPool::TryRun(std::function<void()> task) { return tasks_.TryPush(std::move(task)); }

}  // namespace pregate
