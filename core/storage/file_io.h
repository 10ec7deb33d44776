// What the files of this folder need of the operating system.
#pragma once

#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace pregate {

// `what` and the system's reason for `error`, under absl's code for it; DATA_LOSS where absl has
// none (an I/O error of a disk).
absl::Status ErrnoStatus(int error, const std::string& what);

// Owns a descriptor. Move-only.
class FileDescriptor {
 public:
  // open(2) with O_CLOEXEC. The error names the path.
  static absl::StatusOr<FileDescriptor> Open(const std::string& path, int flags);

  FileDescriptor() = default;
  FileDescriptor(FileDescriptor&& other) noexcept : value_(std::exchange(other.value_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    std::swap(value_, other.value_);
    return *this;
  }
  ~FileDescriptor() {
    if (value_ >= 0) close(value_);
  }

  int get() const { return value_; }  // -1: none

 private:
  explicit FileDescriptor(int value) : value_(value) {}
  int value_ = -1;
};

// Writes all of `bytes` at `offset`. The error names `path`.
absl::Status WriteAt(const FileDescriptor& file,
                     uint64_t offset,
                     absl::Span<const std::byte> bytes,
                     const std::string& path);

// fsync of the folder that `path` is in: names in it that came or went are then on disk.
absl::Status SyncFolderOf(const std::string& path);

}  // namespace pregate
