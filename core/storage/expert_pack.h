// `experts.pack`: a model's experts on disk as records that are read with one transfer each. The
// format is docs/expert-pack.md. What is in a record is the codec's business, not this file's.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace pregate {

// What the header says of the records.
struct ExpertPackHeader {
  uint32_t num_layers = 0;    // that have experts
  uint32_t num_experts = 0;   // in each of them
  uint64_t record_bytes = 0;  // of a record's content
  // Whatever else must be known to read the records and to know where they came from: "codec",
  // "dtype", "hidden_size", "source" … The pack's business is only that it comes back as it was.
  std::map<std::string, std::string> properties = {};
  friend bool operator==(const ExpertPackHeader&, const ExpertPackHeader&) = default;
};

// 64-bit XXH3 of a record's content, its layer and its expert: what its trailer holds.
uint64_t ExpertRecordChecksum(absl::Span<const std::byte> content, uint32_t layer, uint32_t expert);

// pread(2): the bytes read, or -1 and errno. Tests give one that fails; it is called by any thread.
using PreadFunction = std::function<ssize_t(int descriptor, void* to, size_t bytes, off_t offset)>;

// A pack that can be read. What Open accepts has a valid header and the length that it says; the
// records are looked at when they are read. Immutable: thread-safe. Move-only.
class ExpertPack {
 public:
  // INVALID_ARGUMENT names the file, the field or offset, and what it should be. All reads go
  // through `pread`, the system's by default.
  static absl::StatusOr<ExpertPack> Open(const std::string& path, PreadFunction pread = nullptr);
  ExpertPack(ExpertPack&&) noexcept;
  ExpertPack& operator=(ExpertPack&&) noexcept;
  ~ExpertPack();

  const std::string& path() const;
  const ExpertPackHeader& header() const;
  uint64_t num_records() const;  // num_layers · num_experts

  // Records are 4 KiB-aligned in the file and begin stride_bytes apart. A stride holds the content,
  // zeros, and in its last 16 bytes the checksum and the expert: enough to find any flipped bit.
  uint64_t stride_bytes() const;
  uint64_t offset_of(uint32_t layer, uint32_t expert) const;

  // Reads a whole stride into `stride` [stride_bytes()], 4 KiB-aligned, without the page cache
  // where the file system can (O_DIRECT), and checks it. DATA_LOSS or the system's error names the
  // expert, the bytes read and wanted, the offset and the file. Blocks.
  absl::Status Read(uint32_t layer, uint32_t expert, absl::Span<std::byte> stride) const;

  // The same for `count` records that lie one after another, with one system call where possible.
  // Each record's status goes to `statuses` [count].
  void ReadRun(uint32_t layer,
               uint32_t expert,
               uint32_t count,
               absl::Span<std::byte> strides,
               absl::Span<absl::Status> statuses) const;

  // Is the stride what the writer wrote for that expert? DATA_LOSS names it.
  absl::Status Check(uint32_t layer, uint32_t expert, absl::Span<const std::byte> stride) const;

 private:
  struct File;
  explicit ExpertPack(std::unique_ptr<File> file);
  std::unique_ptr<File> file_;
};

// Writes a pack record by record, in order, into `PATH.partial`, which Finish renames into place
// after an fsync: whoever opens PATH finds a whole pack or none, also after a kill at any moment. A
// writer that finds a partial file with the same header goes on behind its last whole record. Used
// by one thread.
class ExpertPackWriter {
 public:
  // INVALID_ARGUMENT: no pack can have this header. FAILED_PRECONDITION: another writer, of this
  // process or another, is at work on the same path.
  static absl::StatusOr<std::unique_ptr<ExpertPackWriter>> Create(const std::string& path,
                                                                  const ExpertPackHeader& header);
  // Leaves the partial file for a later Create.
  ~ExpertPackWriter();

  // How many records are there already; Append continues with the next.
  uint64_t num_written() const;

  // `content` [header.record_bytes] of the next expert, layer by layer. A failed one leaves nothing
  // behind and may be called again: RESOURCE_EXHAUSTED, say, for a disk that is full.
  absl::Status Append(absl::Span<const std::byte> content);

  // FAILED_PRECONDITION when records are missing. Once this is OK the pack survives a power cut.
  absl::Status Finish();

 private:
  struct File;
  explicit ExpertPackWriter(std::unique_ptr<File> file);
  std::unique_ptr<File> file_;
};

}  // namespace pregate
