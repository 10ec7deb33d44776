// How many calls may be in the server at once.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <utility>

#include "core/base/mutex.h"

namespace pregate {

class PermitPool;

// The right to be one of them; given back when destroyed. Move-only.
class Permit {
 public:
  Permit(Permit&& other) noexcept : pool_(std::exchange(other.pool_, nullptr)) {}
  Permit& operator=(Permit&&) = delete;
  ~Permit();

 private:
  friend class PermitPool;
  explicit Permit(PermitPool& pool) : pool_(&pool) {}

  PermitPool* pool_;
};

// Thread-safe; outlives its permits.
class PermitPool {
 public:
  explicit PermitPool(uint32_t capacity) : capacity_(capacity), free_(capacity) {}

  // Nothing when all are out. Never waits.
  std::optional<Permit> TryAcquire() {
    MutexLock lock(mutex_);
    if (free_ == 0) return std::nullopt;
    --free_;
    return Permit(*this);
  }

  // Returns when none is out, or at `deadline`: whether none is out.
  bool AwaitAllFree(std::chrono::steady_clock::time_point deadline) {
    MutexLock lock(mutex_);
    while (free_ < capacity_ && std::chrono::steady_clock::now() < deadline) {
      all_free_.WaitUntil(mutex_, deadline);
    }
    return free_ == capacity_;
  }

  uint32_t capacity() const { return capacity_; }
  uint32_t num_free() const {
    MutexLock lock(mutex_);
    return free_;
  }

 private:
  friend class Permit;
  void GiveBack() {
    MutexLock lock(mutex_);
    // Under the lock: whoever waits for the last permit may then destroy the pool.
    if (++free_ == capacity_) all_free_.NotifyAll();
  }

  const uint32_t capacity_;
  mutable Mutex mutex_;
  CondVar all_free_;
  uint32_t free_ ABSL_GUARDED_BY(mutex_);
};

inline Permit::~Permit() {
  if (pool_ != nullptr) pool_->GiveBack();
}

}  // namespace pregate
