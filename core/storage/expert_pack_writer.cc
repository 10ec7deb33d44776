#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <vector>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/storage/expert_pack.h"
#include "core/storage/expert_pack_format.h"
#include "core/storage/file_io.h"

namespace pregate {
namespace {

// So that the disk works while records are made, and a crash of the machine costs little.
constexpr uint64_t kSyncEvery = uint64_t{256} << 20;

// Opens `path`, which is made if it is not there, for this writer alone.
absl::StatusOr<FileDescriptor> OpenLocked(const std::string& path) {
  for (;;) {
    PREGATE_ASSIGN_OR_RETURN(FileDescriptor file, FileDescriptor::Open(path, O_RDWR | O_CREAT));
    if (flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
      if (errno == EINTR) continue;
      if (errno == EWOULDBLOCK) {
        return absl::FailedPreconditionError(absl::StrCat("another writer is at work on ", path));
      }
      return ErrnoStatus(errno, absl::StrCat("cannot lock ", path));
    }
    struct stat locked;
    struct stat named;
    if (fstat(file.get(), &locked) != 0) {
      return ErrnoStatus(errno, absl::StrCat("cannot read ", path));
    }
    // A writer that finished in between has renamed what was opened: it is no longer partial.
    if (stat(path.c_str(), &named) == 0 && named.st_ino == locked.st_ino &&
        named.st_dev == locked.st_dev) {
      return file;
    }
  }
}

}  // namespace

struct ExpertPackWriter::File {
  uint64_t Offset(uint64_t record) const {
    return shape.header_bytes + record * shape.stride_bytes;
  }
  uint32_t Layer(uint64_t record) const {
    return static_cast<uint32_t>(record / shape.header.num_experts);
  }
  uint32_t Expert(uint64_t record) const {
    return static_cast<uint32_t>(record % shape.header.num_experts);
  }
  // Counts the records that are there already, and cuts off what is behind them.
  absl::Status Resume();
  // Does the file begin with `bytes`?
  absl::StatusOr<bool> BeginsWith(const std::string& bytes) const;
  absl::StatusOr<uint64_t> Read(uint64_t offset, absl::Span<std::byte> to) const;
  absl::Status Truncate(uint64_t bytes) const;
  absl::Status Sync() const;

  std::string path;
  std::string partial_path;
  FileDescriptor file;  // none once finished
  ExpertPackShape shape;
  uint64_t num_written = 0;
  uint64_t unsynced_bytes = 0;
  std::vector<std::byte> stride;
};

absl::StatusOr<uint64_t> ExpertPackWriter::File::Read(uint64_t offset,
                                                      absl::Span<std::byte> to) const {
  uint64_t bytes = 0;
  while (bytes < to.size()) {
    const ssize_t got =
        pread(file.get(), to.data() + bytes, to.size() - bytes, static_cast<off_t>(offset + bytes));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoStatus(errno, absl::StrCat("cannot read ", partial_path));
    if (got == 0) break;
    bytes += static_cast<uint64_t>(got);
  }
  return bytes;
}

absl::Status ExpertPackWriter::File::Truncate(uint64_t bytes) const {
  if (ftruncate(file.get(), static_cast<off_t>(bytes)) == 0) return absl::OkStatus();
  return ErrnoStatus(errno, absl::StrCat("cannot cut ", partial_path, " to ", bytes, " bytes"));
}

absl::Status ExpertPackWriter::File::Sync() const {
  if (fsync(file.get()) == 0) return absl::OkStatus();
  return ErrnoStatus(errno, absl::StrCat("cannot sync ", partial_path));
}

absl::StatusOr<bool> ExpertPackWriter::File::BeginsWith(const std::string& bytes) const {
  std::string begin(bytes.size(), '\0');
  PREGATE_ASSIGN_OR_RETURN(
      const uint64_t read,
      Read(0, absl::MakeSpan(reinterpret_cast<std::byte*>(begin.data()), begin.size())));
  return read == bytes.size() && begin == bytes;
}

absl::Status ExpertPackWriter::File::Resume() {
  const std::string header = SerializeExpertPackHeader(shape);
  PREGATE_ASSIGN_OR_RETURN(const bool is_same, BeginsWith(header));
  if (!is_same) {
    PREGATE_RETURN_IF_ERROR(Truncate(0));
    // Or a power cut may leave the new header before records that were written under another.
    PREGATE_RETURN_IF_ERROR(Sync());
    return WriteAt(
        file,
        0,
        absl::MakeConstSpan(reinterpret_cast<const std::byte*>(header.data()), header.size()),
        partial_path);
  }
  // A killed writer leaves whole records; a machine that lost its power may have left anything.
  for (; num_written < shape.num_records; ++num_written) {
    PREGATE_ASSIGN_OR_RETURN(const uint64_t read,
                             Read(Offset(num_written), absl::MakeSpan(stride)));
    if (read < stride.size() ||
        !CheckExpertRecord(
             shape.header.record_bytes, Layer(num_written), Expert(num_written), stride)
             .ok()) {
      break;
    }
  }
  return Truncate(Offset(num_written));
}

absl::StatusOr<std::unique_ptr<ExpertPackWriter>> ExpertPackWriter::Create(
    const std::string& path, const ExpertPackHeader& header) {
  auto file = std::make_unique<File>();
  file->path = path;
  file->partial_path = path + ".partial";
  absl::StatusOr<ExpertPackShape> shape = ShapeOfExpertPack(header);
  if (!shape.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", shape.status().message()));
  }
  file->shape = *std::move(shape);
  file->stride.resize(file->shape.stride_bytes);
  PREGATE_ASSIGN_OR_RETURN(file->file, OpenLocked(file->partial_path));
  PREGATE_RETURN_IF_ERROR(file->Resume());
  return absl::WrapUnique(new ExpertPackWriter(std::move(file)));
}

ExpertPackWriter::ExpertPackWriter(std::unique_ptr<File> file) : file_(std::move(file)) {}
ExpertPackWriter::~ExpertPackWriter() = default;

uint64_t ExpertPackWriter::num_written() const { return file_->num_written; }

absl::Status ExpertPackWriter::Append(absl::Span<const std::byte> content) {
  File& file = *file_;
  if (file.file.get() < 0) {
    return absl::FailedPreconditionError(absl::StrCat(file.path, ": has been finished"));
  }
  if (file.num_written == file.shape.num_records) {
    return absl::FailedPreconditionError(
        absl::StrCat(file.path, ": all ", file.num_written, " records are there"));
  }
  if (content.size() != file.shape.header.record_bytes) {
    return absl::InvalidArgumentError(absl::StrCat(file.path,
                                                   ": a record of ",
                                                   content.size(),
                                                   " bytes where each has ",
                                                   file.shape.header.record_bytes));
  }
  std::memcpy(file.stride.data(), content.data(), content.size());
  SealExpertRecord(content.size(),
                   file.Layer(file.num_written),
                   file.Expert(file.num_written),
                   absl::MakeSpan(file.stride));
  const uint64_t offset = file.Offset(file.num_written);
  absl::Status written = WriteAt(file.file, offset, file.stride, file.partial_path);
  if (!written.ok()) {
    // What is left of a record is of no use, and its space may be what others wait for.
    file.Truncate(offset).IgnoreError();
    return written;
  }
  ++file.num_written;
  file.unsynced_bytes += file.stride.size();
  if (file.unsynced_bytes < kSyncEvery) return absl::OkStatus();
  file.unsynced_bytes = 0;
  return file.Sync();
}

absl::Status ExpertPackWriter::Finish() {
  File& file = *file_;
  if (file.file.get() < 0) {
    return absl::FailedPreconditionError(absl::StrCat(file.path, ": has been finished"));
  }
  if (file.num_written < file.shape.num_records) {
    return absl::FailedPreconditionError(absl::StrCat(file.path,
                                                      ": ",
                                                      file.shape.num_records - file.num_written,
                                                      " of ",
                                                      file.shape.num_records,
                                                      " records are missing"));
  }
  PREGATE_RETURN_IF_ERROR(file.Sync());
  if (rename(file.partial_path.c_str(), file.path.c_str()) != 0) {
    return ErrnoStatus(errno, absl::StrCat("cannot rename ", file.partial_path, " to ", file.path));
  }
  file.file = FileDescriptor();
  return SyncFolderOf(file.path);
}

}  // namespace pregate
