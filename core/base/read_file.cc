#include "core/base/read_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "absl/strings/str_cat.h"

namespace pregate {

absl::StatusOr<std::string> ReadFile(const std::string& path, size_t max_bytes) {
  // Without O_NONBLOCK the opening of a pipe would wait for its writer.
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path));
  std::string bytes;
  char buffer[1 << 16];
  ssize_t count = 0;
  do {
    bytes.append(buffer, static_cast<size_t>(count));
    count = read(descriptor, buffer, sizeof(buffer));
  } while (count > 0 && bytes.size() + static_cast<size_t>(count) <= max_bytes);
  const int error = errno;
  close(descriptor);
  if (count < 0) return absl::ErrnoToStatus(error, absl::StrCat("cannot read ", path));
  if (count > 0) {
    return absl::ResourceExhaustedError(
        absl::StrCat(path, ": larger than the ", max_bytes, " bytes that it may have"));
  }
  return bytes;
}

}  // namespace pregate
