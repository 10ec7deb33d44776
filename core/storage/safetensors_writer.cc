#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/storage/safetensors.h"
#include "core/storage/safetensors_header.h"

namespace pregate {
namespace {

absl::Status WriteAll(int descriptor, absl::Span<const std::byte> bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t written = write(descriptor, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot write ", path));
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<SafetensorsWriter>> SafetensorsWriter::Create(
    const std::string& path,
    const std::vector<TensorSpec>& tensors,
    const std::map<std::string, std::string>& metadata) {
  uint64_t data_size = 0;
  PREGATE_ASSIGN_OR_RETURN(const std::string header,
                           SerializeSafetensorsHeader(tensors, metadata, data_size));
  std::string temporary_path = absl::StrCat(path, ".", getpid(), ".tmp");
  const int descriptor =
      open(temporary_path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (descriptor < 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot create ", temporary_path));
  }
  auto writer = absl::WrapUnique(
      new SafetensorsWriter(path, std::move(temporary_path), descriptor, data_size));
  PREGATE_RETURN_IF_ERROR(WriteAll(
      descriptor,
      absl::MakeConstSpan(reinterpret_cast<const std::byte*>(header.data()), header.size()),
      writer->temporary_path_));
  return writer;
}

SafetensorsWriter::SafetensorsWriter(std::string path,
                                     std::string temporary_path,
                                     int descriptor,
                                     uint64_t size)
    : path_(std::move(path)),
      temporary_path_(std::move(temporary_path)),
      descriptor_(descriptor),
      remaining_(size) {}

SafetensorsWriter::~SafetensorsWriter() {
  if (descriptor_ < 0) return;
  close(descriptor_);
  unlink(temporary_path_.c_str());
}

absl::Status SafetensorsWriter::Append(absl::Span<const std::byte> bytes) {
  if (descriptor_ < 0) {
    return absl::FailedPreconditionError(absl::StrCat(path_, ": has been finished"));
  }
  if (bytes.size() > remaining_) {
    return absl::InvalidArgumentError(absl::StrCat(
        path_, ": ", bytes.size(), " bytes given where ", remaining_, " are still to come"));
  }
  PREGATE_RETURN_IF_ERROR(WriteAll(descriptor_, bytes, temporary_path_));
  remaining_ -= bytes.size();
  return absl::OkStatus();
}

absl::Status SafetensorsWriter::Finish() {
  if (descriptor_ < 0) {
    return absl::FailedPreconditionError(absl::StrCat(path_, ": has been finished"));
  }
  if (remaining_ != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat(path_, ": ", remaining_, " bytes of its tensors are missing"));
  }
  if (fsync(descriptor_) != 0 || rename(temporary_path_.c_str(), path_.c_str()) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot finish ", path_));
  }
  close(descriptor_);
  descriptor_ = -1;
  return absl::OkStatus();
}

}  // namespace pregate
