// A device as memory, streams and events, and nothing else: no shapes, no dtypes, no kernels.
//
// Implementations: CpuBackend, and in tests ManualBackend, whose operations the test steps one by
// one. tests/contract/backend_test.cc holds each of them to what is said here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace pregate {

enum class MemoryKind {
  kHost,    // pageable
  kPinned,  // of the host, where the device can read and write it at full speed
  kDevice,  // only streams may touch it, unless the backend says that it is the host's too
};

// The only owner of a span of memory. Move-only. Aligned to at least 4 KiB.
class Buffer {
 public:
  Buffer() = default;
  // `release` is called once with `data` and `size` at the end.
  Buffer(std::byte* data,
         size_t size,
         MemoryKind kind,
         std::function<void(std::byte*, size_t)> release)
      : data_(data), size_(size), kind_(kind), release_(std::move(release)) {}
  ~Buffer() { Release(); }
  Buffer(Buffer&& other) noexcept { *this = std::move(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    if (this == &other) return *this;
    Release();
    data_ = std::exchange(other.data_, nullptr);
    size_ = std::exchange(other.size_, 0);
    kind_ = other.kind_;
    release_ = std::exchange(other.release_, nullptr);
    return *this;
  }

  std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  MemoryKind kind() const { return kind_; }

 private:
  void Release() {
    if (release_) release_(data_, size_);
    release_ = nullptr;
  }

  std::byte* data_ = nullptr;
  size_t size_ = 0;
  MemoryKind kind_ = MemoryKind::kHost;
  std::function<void(std::byte*, size_t)> release_;
};

// A point in a stream's work. A cheap value; thread-safe. One made by default has always passed.
class Event {
 public:
  class State {
   public:
    virtual ~State() = default;
    virtual bool Ready() const = 0;
    // The stream's first error before this point that its Synchronize had not told yet.
    virtual absl::Status BlockUntilReady() const = 0;
  };

  Event() = default;
  explicit Event(std::shared_ptr<const State> state) : state_(std::move(state)) {}

  // Has all work before it been done (or failed)? Never waits.
  bool Ready() const { return state_ == nullptr || state_->Ready(); }
  absl::Status BlockUntilReady() const {
    return state_ == nullptr ? absl::OkStatus() : state_->BlockUntilReady();
  }
  // What the backend that made it needs to know of it; null for the default one.
  const State* state() const { return state_.get(); }

 private:
  std::shared_ptr<const State> state_;
};

// Work in the order in which it was given; unordered against other streams but for Wait. Calls
// return at once unless said otherwise. Thread-safe. Its destructor waits for its work.
class Stream {
 public:
  virtual ~Stream() = default;

  // Copies `bytes` between spans that do not overlap and stay valid until the copy is done.
  virtual void CopyAsync(std::byte* to, const std::byte* from, size_t bytes) = 0;

  // The point behind all work given so far.
  virtual Event Record() = 0;

  // Later work of this stream begins after `event`, which may be of any stream of the backend. That
  // work before it failed does not keep this stream from going on: who waits for the event on the
  // host is told.
  virtual void Wait(const Event& event) = 0;

  // Waits on the calling thread for all work given so far; its first error that no earlier call
  // has told.
  virtual absl::Status Synchronize() = 0;
};

struct MemoryInfo {
  uint64_t total_bytes = 0;
  uint64_t free_bytes = 0;
};

// RESOURCE_EXHAUSTED, as every backend says it.
absl::Status NotEnoughMemory(MemoryKind kind, uint64_t bytes, uint64_t free_bytes);

// Thread-safe. Outlives what it makes.
class Backend {
 public:
  virtual ~Backend() = default;

  // `bytes` > 0, of any content. NotEnoughMemory where there is not that much.
  virtual absl::StatusOr<Buffer> Allocate(MemoryKind kind, size_t bytes) = 0;

  // Addresses for `bytes` of device memory without the memory. Commit and Decommit give memory to
  // spans of it and take it back, in multiples of commit_bytes(); what lies elsewhere keeps its
  // place and content. Committing twice, or decommitting what is not committed, is allowed; a
  // commit that fails changes nothing. No work on a span may be under way when it is decommitted.
  virtual absl::StatusOr<Buffer> Reserve(size_t bytes) = 0;
  virtual absl::Status Commit(const Buffer& reserved, size_t offset, size_t bytes) = 0;
  virtual absl::Status Decommit(const Buffer& reserved, size_t offset, size_t bytes) = 0;
  static constexpr size_t commit_bytes() { return size_t{2} << 20; }

  // `name` is what debuggers show for it (15 characters).
  virtual absl::StatusOr<std::unique_ptr<Stream>> CreateStream(const std::string& name) = 0;

  // Of the device.
  virtual MemoryInfo memory() const = 0;

  // Whether device memory is the host's: it may read and write there what no stream works on.
  virtual bool is_host() const = 0;
};

}  // namespace pregate
