#include "core/storage/whole_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "core/base/status_macros.h"
#include "core/storage/file_io.h"

namespace pregate {
namespace {

absl::Status WriteAndSync(const std::string& path, absl::string_view bytes) {
  PREGATE_ASSIGN_OR_RETURN(const FileDescriptor file,
                           FileDescriptor::Open(path, O_WRONLY | O_CREAT | O_TRUNC));
  PREGATE_RETURN_IF_ERROR(
      WriteAt(file,
              0,
              absl::MakeConstSpan(reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()),
              path));
  if (fsync(file.get()) == 0) return absl::OkStatus();
  return ErrnoStatus(errno, absl::StrCat("cannot sync ", path));
}

}  // namespace

absl::StatusOr<std::string> ReadWholeFile(const std::string& path, uint64_t max_bytes) {
  PREGATE_ASSIGN_OR_RETURN(const FileDescriptor file, FileDescriptor::Open(path, O_RDONLY));
  struct stat status;
  if (fstat(file.get(), &status) != 0) {
    return ErrnoStatus(errno, absl::StrCat("cannot read ", path));
  }
  const auto size = static_cast<uint64_t>(status.st_size);
  if (size > max_bytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat(path, " has ", size, " bytes; at most ", max_bytes, " are read"));
  }
  std::string bytes(size, '\0');
  size_t got = 0;
  while (got < bytes.size()) {
    const ssize_t n = pread(file.get(), &bytes[got], bytes.size() - got, static_cast<off_t>(got));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoStatus(errno, absl::StrCat("cannot read ", path));
    if (n == 0) break;  // it has been cut
    got += static_cast<size_t>(n);
  }
  bytes.resize(got);
  return bytes;
}

absl::Status WriteWholeFile(const std::string& path, absl::string_view bytes) {
  const std::string partial = path + ".partial";
  absl::Status status = WriteAndSync(partial, bytes);
  if (status.ok() && std::rename(partial.c_str(), path.c_str()) != 0) {
    status = ErrnoStatus(errno, absl::StrCat("cannot rename ", partial, " to ", path));
  }
  if (!status.ok()) {
    std::remove(partial.c_str());
    return status;
  }
  return SyncFolderOf(path);
}

uint64_t Checksum(absl::string_view bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

}  // namespace pregate
