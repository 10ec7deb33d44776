// Experts' records in host memory, and the disk behind it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/base/log.h"
#include "core/base/stats.h"
#include "core/device/backend.h"
#include "core/expert/expert_id.h"
#include "core/storage/expert_pack.h"

namespace pregate {

// A record's bytes, which stay where they are, unchanged, while this lives. Move-only.
class HostRecord {
 public:
  HostRecord() = default;
  // `release` is called once at the end; it may be null.
  HostRecord(absl::Span<const std::byte> bytes, bool from_disk, std::function<void()> release);
  ~HostRecord();
  HostRecord(HostRecord&& other) noexcept;
  HostRecord& operator=(HostRecord&& other) noexcept;

  absl::Span<const std::byte> bytes() const { return bytes_; }  // [record_bytes]
  bool from_disk() const { return from_disk_; }                 // had to be read for this caller

 private:
  absl::Span<const std::byte> bytes_;
  bool from_disk_ = false;
  std::function<void()> release_;
};

// Where records come from. Thread-safe. Implementations: HostTier; in tests one whose answers come
// when the test says so, and one that fails.
class RecordSource {
 public:
  // Called exactly once: on the calling thread where the record is there already, else on another,
  // under no lock. It must not block.
  using Done = std::function<void(absl::StatusOr<HostRecord>)>;

  virtual ~RecordSource() = default;

  virtual const ExpertPackHeader& header() const = 0;

  // Pins the record's bytes, whose checksum has been verified since they were last read. An error
  // names the expert; the next Fetch tries again. `is_urgent`: before all that are not, also when
  // somebody asked for the record before without. `id` must be one of the pack's.
  virtual void Fetch(ExpertId id, bool is_urgent, Done done) = 0;

  virtual void VisitStats(StatsVisitor& visitor) const = 0;
};

// Records of a pack in an arena of host memory: all of them, read at the start, or as many as fit a
// budget, read when they are asked for and kept by how recently that was. Its destructor waits for
// reads under way, and what waits for a read that has not begun gets CANCELLED; all HostRecords
// must be gone by then.
class HostTier final : public RecordSource {
 public:
  struct Options {
    uint64_t budget_bytes = UINT64_MAX;          // of the arena; at least two records
    uint64_t piece_bytes = uint64_t{256} << 20;  // taken from the backend at a time
    uint32_t num_readers = 4;                    // threads that read from disk
    uint32_t num_attempts = 3;  // of a read that fails, a short read or a wrong checksum
    // Called by Create now and then while the arena fills, with the bytes read and to be read.
    std::function<void(uint64_t done, uint64_t total)> on_progress = nullptr;
  };

  // Takes pinned memory from `backend` in pieces, or pageable memory with a warning that says how
  // to allow pinning. RESOURCE_EXHAUSTED: a budget below two records, or no memory. With room for
  // all records, a record that cannot be read does not fail this: it is tried again when it is
  // fetched. The references outlive this.
  static absl::StatusOr<std::unique_ptr<HostTier>> Create(ExpertPack pack,
                                                          Backend& backend,
                                                          const Options& options,
                                                          const Logger& logger);
  ~HostTier() override;

  const ExpertPackHeader& header() const override;
  void Fetch(ExpertId id, bool is_urgent, Done done) override;
  // expert_host_bytes{kind=capacity|resident}, expert_disk_reads_total{result=ok|retried|failed}.
  void VisitStats(StatsVisitor& visitor) const override;

  const ExpertPack& pack() const;
  bool holds_all() const;
  uint64_t arena_bytes() const;

 private:
  class Arena;
  explicit HostTier(std::unique_ptr<Arena> arena);
  std::unique_ptr<Arena> arena_;
};

}  // namespace pregate
