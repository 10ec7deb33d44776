#include "core/storage/file_io.h"

#include <fcntl.h>

#include <cerrno>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"

namespace pregate {

absl::Status ErrnoStatus(int error, const std::string& what) {
  absl::Status status = absl::ErrnoToStatus(error, what);
  if (status.code() != absl::StatusCode::kUnknown) return status;
  return absl::DataLossError(status.message());
}

absl::StatusOr<FileDescriptor> FileDescriptor::Open(const std::string& path, int flags) {
  const int value = open(path.c_str(), flags | O_CLOEXEC, 0666);
  if (value < 0) return ErrnoStatus(errno, absl::StrCat("cannot open ", path));
  return FileDescriptor(value);
}

absl::Status WriteAt(const FileDescriptor& file,
                     uint64_t offset,
                     absl::Span<const std::byte> bytes,
                     const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t written =
        pwrite(file.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {
      return ErrnoStatus(
          errno,
          absl::StrCat(
              "cannot write ", bytes.size(), " bytes at 0x", absl::Hex(offset), " of ", path));
    }
    bytes.remove_prefix(static_cast<size_t>(written));
    offset += static_cast<uint64_t>(written);
  }
  return absl::OkStatus();
}

absl::Status SyncFolderOf(const std::string& path) {
  const std::filesystem::path parent = std::filesystem::path(path).parent_path();
  const std::string folder = parent.empty() ? std::string(".") : parent.string();
  PREGATE_ASSIGN_OR_RETURN(const FileDescriptor descriptor,
                           FileDescriptor::Open(folder, O_RDONLY | O_DIRECTORY));
  if (fsync(descriptor.get()) != 0) {
    return ErrnoStatus(errno, absl::StrCat("cannot sync the folder ", folder));
  }
  return absl::OkStatus();
}

}  // namespace pregate
