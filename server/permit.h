// How many calls may be in the server at once.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <utility>

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
    uint32_t free = free_.load(std::memory_order_relaxed);
    while (free > 0) {
      if (free_.compare_exchange_weak(free, free - 1, std::memory_order_acquire))
        return Permit(*this);
    }
    return std::nullopt;
  }

  uint32_t capacity() const { return capacity_; }
  uint32_t num_free() const { return free_.load(std::memory_order_relaxed); }

 private:
  friend class Permit;

  const uint32_t capacity_;
  std::atomic<uint32_t> free_;
};

inline Permit::~Permit() {
  if (pool_ != nullptr) pool_->free_.fetch_add(1, std::memory_order_release);
}

}  // namespace pregate
