#include "server/strand.h"

#include <utility>

#include "core/base/check.h"

namespace pregate {

Strand::Strand(ThreadPool& pool, std::function<void()> advance)
    : pool_(pool), advance_(std::move(advance)) {}

void Strand::Poke() {
  {
    MutexLock lock(mutex_);
    poked_ = true;
    if (running_) return;
    running_ = true;
  }
  const bool queued = pool_.TryRun([this] { Run(); });
  PREGATE_CHECK(queued, "the pool has no room for a strand's task");
}

void Strand::Retire(std::function<void()> destroy) {
  {
    MutexLock lock(mutex_);
    if (running_) {
      destroy_ = std::move(destroy);
      return;
    }
  }
  destroy();
}

void Strand::Run() {
  std::function<void()> destroy;
  while (true) {
    {
      MutexLock lock(mutex_);
      if (!poked_ || destroy_) {
        running_ = false;
        destroy = std::move(destroy_);
        break;
      }
      poked_ = false;
    }
    advance_();
  }
  // Behind this line `this` may be gone: Retire on another thread has seen running_ == false, or
  // `destroy` does it here.
  if (destroy) destroy();
}

}  // namespace pregate
