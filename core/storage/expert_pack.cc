#include "core/storage/expert_pack.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/check.h"
#include "core/base/status_macros.h"
#include "core/storage/expert_pack_format.h"
#include "core/storage/file_io.h"

namespace pregate {
namespace {

// How many bytes a read brought, and why not more: 0 at the end of the file.
struct ReadResult {
  uint64_t bytes = 0;
  int error = 0;
};

absl::Status OfRecord(const absl::Status& status, uint32_t layer, uint32_t expert) {
  return absl::Status(status.code(),
                      absl::StrCat("expert ", layer, "/", expert, ": ", status.message()));
}

}  // namespace

struct ExpertPack::File {
  // Reads up to `to.size()` bytes at `offset`, less only at the file's end or an error.
  ReadResult Read(uint64_t offset, absl::Span<std::byte> to) const;
  absl::Status ReadHeader();
  absl::Status CheckLength(uint64_t bytes) const;
  absl::Status ReadRecord(uint64_t record, absl::Span<std::byte> stride) const;
  absl::Status CheckRecord(uint64_t record, absl::Span<const std::byte> stride) const;
  uint64_t Offset(uint64_t record) const {
    return shape.header_bytes + record * shape.stride_bytes;
  }
  uint32_t Layer(uint64_t record) const {
    return static_cast<uint32_t>(record / shape.header.num_experts);
  }
  uint32_t Expert(uint64_t record) const {
    return static_cast<uint32_t>(record % shape.header.num_experts);
  }
  uint64_t Record(uint32_t layer, uint32_t expert) const {
    PREGATE_CHECK(layer < shape.header.num_layers && expert < shape.header.num_experts,
                  "expert ",
                  layer,
                  "/",
                  expert,
                  " of ",
                  path);
    return uint64_t{layer} * shape.header.num_experts + expert;
  }

  std::string path;
  PreadFunction pread;
  FileDescriptor buffered;
  FileDescriptor direct;                          // none: the file system has no O_DIRECT
  mutable std::atomic<bool> direct_fails{false};  // it has, but reads through it fail
  ExpertPackShape shape;
};

ReadResult ExpertPack::File::Read(uint64_t offset, absl::Span<std::byte> to) const {
  ReadResult result;
  while (result.bytes < to.size()) {
    // The rest of a short read need not begin where O_DIRECT can.
    const bool is_direct = direct.get() >= 0 && result.bytes % kPackAlignment == 0 &&
                           !direct_fails.load(std::memory_order_relaxed);
    const ssize_t got = pread(is_direct ? direct.get() : buffered.get(),
                              to.data() + result.bytes,
                              to.size() - result.bytes,
                              static_cast<off_t>(offset + result.bytes));
    if (got > 0) {
      result.bytes += static_cast<uint64_t>(got);
    } else if (got == 0) {
      return result;
    } else if (is_direct && errno == EINVAL) {
      // Some file systems let it be opened and say only now that they cannot.
      direct_fails.store(true, std::memory_order_relaxed);
    } else if (errno != EINTR) {
      result.error = errno;
      return result;
    }
  }
  return result;
}

absl::Status ExpertPack::File::ReadRecord(uint64_t record, absl::Span<std::byte> stride) const {
  const uint64_t offset = Offset(record);
  const ReadResult read = Read(offset, stride);
  const std::string place = absl::StrCat(" at 0x", absl::Hex(offset), " of ", path);
  if (read.error != 0) {
    const absl::Status reason =
        ErrnoStatus(read.error, absl::StrCat("cannot read ", stride.size(), " bytes", place));
    return OfRecord(reason, Layer(record), Expert(record));
  }
  if (read.bytes < stride.size()) {
    return OfRecord(absl::DataLossError(
                        absl::StrCat("read ", read.bytes, " of ", stride.size(), " bytes", place)),
                    Layer(record),
                    Expert(record));
  }
  return CheckRecord(record, stride);
}

absl::Status ExpertPack::File::CheckRecord(uint64_t record,
                                           absl::Span<const std::byte> stride) const {
  absl::Status status =
      CheckExpertRecord(shape.header.record_bytes, Layer(record), Expert(record), stride);
  if (status.ok()) return status;
  return OfRecord(absl::DataLossError(absl::StrCat(
                      status.message(), ", at 0x", absl::Hex(Offset(record)), " of ", path)),
                  Layer(record),
                  Expert(record));
}

absl::Status ExpertPack::File::ReadHeader() {
  const auto read = [this](std::string& bytes) {
    auto* const data = reinterpret_cast<std::byte*>(bytes.data());
    const ReadResult result = Read(0, absl::MakeSpan(data, bytes.size()));
    bytes.resize(result.bytes);
    return result.error == 0 ? absl::OkStatus()
                             : ErrnoStatus(result.error, "header: cannot read it");
  };
  std::string bytes(kPackAlignment, '\0');
  PREGATE_RETURN_IF_ERROR(read(bytes));
  PREGATE_ASSIGN_OR_RETURN(const uint64_t header_bytes, ExpertPackHeaderBytes(bytes));
  bytes.resize(header_bytes);
  PREGATE_RETURN_IF_ERROR(read(bytes));
  if (bytes.size() < header_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("header: ", bytes.size(), " of its ", header_bytes, " bytes are there"));
  }
  PREGATE_ASSIGN_OR_RETURN(shape, ParseExpertPackHeader(bytes));
  return absl::OkStatus();
}

absl::Status ExpertPack::File::CheckLength(uint64_t bytes) const {
  if (bytes == shape.file_bytes) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("the file has ",
                                                 bytes,
                                                 " bytes, with ",
                                                 shape.num_records,
                                                 " records of ",
                                                 shape.stride_bytes,
                                                 " it should have ",
                                                 shape.file_bytes));
}

absl::StatusOr<ExpertPack> ExpertPack::Open(const std::string& path, PreadFunction pread) {
  auto file = std::make_unique<File>();
  file->path = path;
  file->pread = pread != nullptr ? std::move(pread) : ::pread;
  // Without O_NONBLOCK the opening of a pipe would wait for its writer.
  PREGATE_ASSIGN_OR_RETURN(file->buffered, FileDescriptor::Open(path, O_RDONLY | O_NONBLOCK));
  struct stat info;
  if (fstat(file->buffered.get(), &info) != 0 || !S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": header: it is not a file"));
  }
  // What is read is kept by those who read it; once more in the page cache is memory lost.
  posix_fadvise(file->buffered.get(), 0, 0, POSIX_FADV_RANDOM);
  absl::Status status = file->ReadHeader();
  if (status.ok()) status = file->CheckLength(static_cast<uint64_t>(info.st_size));
  if (!status.ok()) {
    return absl::Status(status.code(), absl::StrCat(path, ": ", status.message()));
  }
  // Only now, as the header is read into memory that O_DIRECT cannot write to; and not by its name,
  // which may be another pack's by now.
  absl::StatusOr<FileDescriptor> direct = FileDescriptor::Open(
      absl::StrCat("/proc/self/fd/", file->buffered.get()), O_RDONLY | O_DIRECT);
  if (direct.ok()) file->direct = *std::move(direct);
  return ExpertPack(std::move(file));
}

ExpertPack::ExpertPack(std::unique_ptr<File> file) : file_(std::move(file)) {}
ExpertPack::ExpertPack(ExpertPack&&) noexcept = default;
ExpertPack& ExpertPack::operator=(ExpertPack&&) noexcept = default;
ExpertPack::~ExpertPack() = default;

const std::string& ExpertPack::path() const { return file_->path; }
const ExpertPackHeader& ExpertPack::header() const { return file_->shape.header; }
uint64_t ExpertPack::num_records() const { return file_->shape.num_records; }
uint64_t ExpertPack::stride_bytes() const { return file_->shape.stride_bytes; }
uint64_t ExpertPack::offset_of(uint32_t layer, uint32_t expert) const {
  return file_->Offset(file_->Record(layer, expert));
}

absl::Status ExpertPack::Read(uint32_t layer, uint32_t expert, absl::Span<std::byte> stride) const {
  PREGATE_CHECK(stride.size() == stride_bytes(), stride.size());
  return file_->ReadRecord(file_->Record(layer, expert), stride);
}

void ExpertPack::ReadRun(uint32_t layer,
                         uint32_t expert,
                         uint32_t count,
                         absl::Span<std::byte> strides,
                         absl::Span<absl::Status> statuses) const {
  const uint64_t first = file_->Record(layer, expert);
  const uint64_t stride = stride_bytes();
  PREGATE_CHECK(first + count <= num_records() && strides.size() == count * stride &&
                    statuses.size() == count,
                count);
  const bool is_whole = file_->Read(file_->Offset(first), strides).bytes == strides.size();
  for (uint32_t i = 0; i < count; ++i) {
    const absl::Span<std::byte> one = strides.subspan(i * stride, stride);
    // One record that cannot be read must not take the others with it.
    statuses[i] = is_whole ? file_->CheckRecord(first + i, one) : file_->ReadRecord(first + i, one);
  }
}

absl::Status ExpertPack::Check(uint32_t layer,
                               uint32_t expert,
                               absl::Span<const std::byte> stride) const {
  PREGATE_CHECK(stride.size() == stride_bytes(), stride.size());
  return file_->CheckRecord(file_->Record(layer, expert), stride);
}

}  // namespace pregate
