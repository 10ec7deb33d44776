#include "core/text/boundary.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "absl/strings/str_cat.h"

namespace pregate::text_internal {

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  // Without O_NONBLOCK the opening of a pipe would wait for its writer.
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path));
  std::string bytes;
  char buffer[1 << 16];
  ssize_t count = 0;
  do {
    bytes.append(buffer, static_cast<size_t>(count));
    count = read(descriptor, buffer, sizeof(buffer));
  } while (count > 0);
  const int error = errno;
  close(descriptor);
  if (count < 0) return absl::ErrnoToStatus(error, absl::StrCat("cannot read ", path));
  return bytes;
}

absl::Status At(absl::string_view place, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(place, ": ", status.message()));
}

}  // namespace pregate::text_internal
