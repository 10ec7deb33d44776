// A disk that fails as a test tells it to: given to ExpertPack::Open in place of pread(2).
#pragma once

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/base/mutex.h"
#include "core/storage/expert_pack.h"

namespace pregate {

// Thread-safe. Outlives the packs that read through it.
class FaultyDisk {
 public:
  enum class Fault {
    kError,  // EIO
    kEnd,    // the file ends here
    kFlip,   // a bit of this byte is not what was written
  };

  PreadFunction pread() {
    return [this](int descriptor, void* to, size_t bytes, off_t offset) {
      return Read(descriptor, static_cast<std::byte*>(to), bytes, static_cast<uint64_t>(offset));
    };
  }

  // The next `times` reads that reach the byte at `offset` meet the fault.
  void Add(Fault fault, uint64_t offset, int times) {
    MutexLock lock(mutex_);
    faults_.push_back({.fault = fault, .offset = offset, .times = times});
  }
  void Heal() {
    MutexLock lock(mutex_);
    faults_.clear();
  }

  // Reads wait from now on, until Release.
  void Hold() {
    MutexLock lock(mutex_);
    is_held_ = true;
  }
  void Release() {
    MutexLock lock(mutex_);
    is_held_ = false;
    changed_.NotifyAll();
  }
  // Returns once `count` reads wait.
  void AwaitHeld(uint64_t count) {
    MutexLock lock(mutex_);
    while (num_held_ < count) changed_.Wait(mutex_);
  }

  // Where the reads began, in the order in which they were made.
  std::vector<uint64_t> offsets() const {
    MutexLock lock(mutex_);
    return offsets_;
  }
  void ForgetOffsets() {
    MutexLock lock(mutex_);
    offsets_.clear();
  }

 private:
  struct Planned {
    Fault fault = Fault::kError;
    uint64_t offset = 0;
    int times = 0;
  };

  ssize_t Read(int descriptor, std::byte* to, size_t bytes, uint64_t offset) {
    Planned planned;
    {
      MutexLock lock(mutex_);
      offsets_.push_back(offset);
      ++num_held_;
      changed_.NotifyAll();
      while (is_held_) changed_.Wait(mutex_);
      --num_held_;
      for (Planned& candidate : faults_) {
        if (candidate.times == 0 || candidate.offset < offset ||
            candidate.offset >= offset + bytes) {
          continue;
        }
        planned = candidate;
        // What is before the end is read first; the next read begins at the end and meets it.
        if (planned.fault != Fault::kEnd || planned.offset == offset) --candidate.times;
        break;
      }
    }
    if (planned.times > 0 && planned.fault == Fault::kError) {
      errno = EIO;
      return -1;
    }
    if (planned.times > 0 && planned.fault == Fault::kEnd) {
      return ReadSome(descriptor, to, bytes, offset, planned.offset - offset);
    }
    const ssize_t read = ::pread(descriptor, to, bytes, static_cast<off_t>(offset));
    if (planned.times > 0 &&
        offset + static_cast<uint64_t>(std::max<ssize_t>(0, read)) > planned.offset) {
      to[planned.offset - offset] ^= std::byte{1};
    }
    return read;
  }

  // The first `wanted` of `bytes`: all are read, as O_DIRECT cannot read less than a block.
  static ssize_t ReadSome(
      int descriptor, std::byte* to, size_t bytes, uint64_t offset, uint64_t wanted) {
    if (wanted == 0) return 0;
    const ssize_t read = ::pread(descriptor, to, bytes, static_cast<off_t>(offset));
    return std::min(read, static_cast<ssize_t>(wanted));
  }

  mutable Mutex mutex_;
  CondVar changed_;
  std::vector<Planned> faults_ ABSL_GUARDED_BY(mutex_);
  std::vector<uint64_t> offsets_ ABSL_GUARDED_BY(mutex_);
  bool is_held_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t num_held_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace pregate
