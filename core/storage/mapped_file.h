// A file's bytes in memory without reading them: pages come from the kernel's page cache.
#pragma once

#include <cstddef>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace pregate {

// A read-only mapping of a whole regular file. Move-only; unmaps at its end. Thread-safe.
//
// The file must keep its length while it is mapped: touching a page that was cut off ends the
// process with SIGBUS. Replace a model's file by rename, never in place.
class MappedFile {
 public:
  // Errors name the path and the system's reason, under the code that absl::ErrnoToStatus gives it
  // (NOT_FOUND, PERMISSION_DENIED …). FAILED_PRECONDITION: not a regular file. An empty file is
  // fine: bytes() is empty.
  static absl::StatusOr<MappedFile> Open(const std::string& path);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  const std::string& path() const { return path_; }

  // Begins on a page boundary and stays in place when the owner is moved.
  absl::Span<const std::byte> bytes() const { return bytes_; }

 private:
  MappedFile(std::string path, absl::Span<const std::byte> bytes);
  void Unmap();

  std::string path_;
  absl::Span<const std::byte> bytes_;
};

}  // namespace pregate
