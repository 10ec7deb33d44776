#include "core/expert/host_arena.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/bytes.h"
#include "core/base/check.h"
#include "core/base/status_macros.h"

namespace pregate {
namespace {

// One system call of this size runs at the disk's full speed, and a run is also what progress is
// reported by.
constexpr uint64_t kRunBytes = uint64_t{16} << 20;

constexpr char kBytesHelp[] = "Host memory for experts, and how much of it holds one.";
constexpr char kReadsHelp[] =
    "Experts read from disk: at the first attempt, at a later one, or not at all.";

}  // namespace

HostTier::Arena::Arena(ExpertPack pack,
                       uint64_t num_slots,
                       Backend& backend,
                       const Options& options,
                       const Logger& logger)
    : pack_(std::move(pack)),
      backend_(backend),
      options_(options),
      logger_(logger),
      stride_(pack_.stride_bytes()),
      num_slots_(num_slots),
      slots_per_piece_(std::max<uint64_t>(1, options.piece_bytes / stride_)),
      pieces_((num_slots + slots_per_piece_ - 1) / slots_per_piece_),
      records_(pack_.num_records()) {}

HostTier::Arena::~Arena() {
  std::vector<std::pair<ExpertId, Done>> abandoned;
  {
    MutexLock lock(mutex_);
    is_closing_ = true;
    for (const Place& place : queue_) {
      Record& record = records_[std::get<2>(place)];
      for (Done& done : record.waiters) {
        abandoned.emplace_back(Id(std::get<2>(place)), std::move(done));
      }
      record.waiters.clear();
      record.state = State::kAbsent;
    }
    queue_.clear();
    has_read_.NotifyAll();
    fill_changed_.NotifyAll();
  }
  for (auto& [id, done] : abandoned) {
    done(absl::CancelledError(absl::StrCat("expert ", ToString(id), ": the host tier is closing")));
  }
  readers_.clear();  // joins them
  MutexLock lock(mutex_);
  PREGATE_CHECK(num_pinned_ == 0, num_pinned_, " records are still in use");
}

absl::Status HostTier::Arena::Start() {
  const uint32_t num_readers = std::max(1u, options_.num_readers);
  for (uint32_t i = 0; i < num_readers; ++i) {
    readers_.push_back(std::make_unique<Thread>(absl::StrCat("host-tier-", i), [this] {
      if (holds_all()) Fill();
      Serve();
    }));
  }
  PREGATE_RETURN_IF_ERROR(Allocate());
  if (holds_all()) AwaitFill();
  return absl::OkStatus();
}

// Memory.

absl::Status HostTier::Arena::Allocate() {
  // Pinning takes as long as reading, so the readers fill one piece while the next is pinned.
  for (size_t i = 0; i < pieces_.size(); ++i) {
    const uint64_t first = i * slots_per_piece_;
    const uint64_t count = std::min(slots_per_piece_, num_slots_ - first);
    PREGATE_ASSIGN_OR_RETURN(pieces_[i], AllocatePiece(count * stride_));
    MutexLock lock(mutex_);
    num_slots_there_ += count;
    if (!holds_all()) {
      for (uint64_t slot = first; slot < first + count; ++slot) {
        free_slots_.push_back(static_cast<uint32_t>(slot));
      }
    }
    fill_changed_.NotifyAll();
  }
  return absl::OkStatus();
}

absl::StatusOr<Buffer> HostTier::Arena::AllocatePiece(uint64_t bytes) {
  if (kind_ == MemoryKind::kPinned) {
    absl::StatusOr<Buffer> pinned = backend_.Allocate(MemoryKind::kPinned, bytes);
    if (pinned.ok()) return pinned;
    absl::StatusOr<Buffer> pageable = backend_.Allocate(MemoryKind::kHost, bytes);
    if (!pageable.ok()) return pinned.status();
    kind_ = MemoryKind::kHost;
    logger_.Warning(
        "experts lie in pageable memory, which is slower to copy from: raise `ulimit -l`",
        {{"arena", FormatBytes(arena_bytes())}, {"reason", pinned.status().message()}});
    return pageable;
  }
  return backend_.Allocate(MemoryKind::kHost, bytes);
}

absl::Span<std::byte> HostTier::Arena::Strides(uint32_t slot, uint32_t count) const {
  const Buffer& piece = pieces_[slot / slots_per_piece_];
  return absl::MakeSpan(piece.data() + slot % slots_per_piece_ * stride_, count * stride_);
}

// Filling at the start: record r goes to slot r, so that neighbours are read with one call.

void HostTier::Arena::Fill() {
  uint32_t count = 0;
  std::vector<absl::Status> statuses;
  while (const std::optional<uint32_t> first = NextFill(count)) {
    statuses.assign(count, absl::OkStatus());
    const ExpertId id = Id(*first);
    pack_.ReadRun(id.layer, id.expert, count, Strides(*first, count), absl::MakeSpan(statuses));
    for (uint32_t i = 0; i < count; ++i) {
      statuses[i] = Retry({.record = *first + i, .slot = *first + i}, std::move(statuses[i]));
    }
    OnFilled(*first, statuses);
  }
}

std::optional<uint32_t> HostTier::Arena::NextFill(uint32_t& count) {
  MutexLock lock(mutex_);
  while (!is_closing_ && num_fill_begun_ < num_slots_ && num_fill_begun_ == num_slots_there_) {
    fill_changed_.Wait(mutex_);
  }
  if (is_closing_ || num_fill_begun_ == num_slots_) return std::nullopt;
  const uint64_t first = num_fill_begun_;
  count = static_cast<uint32_t>(std::min({std::max<uint64_t>(1, kRunBytes / stride_),
                                          num_slots_there_ - first,
                                          slots_per_piece_ - first % slots_per_piece_}));
  num_fill_begun_ += count;
  return static_cast<uint32_t>(first);
}

void HostTier::Arena::OnFilled(uint32_t first, absl::Span<const absl::Status> statuses) {
  MutexLock lock(mutex_);
  for (uint32_t i = 0; i < statuses.size(); ++i) {
    if (statuses[i].ok()) {
      MakeReady(first + i, first + i);
    } else {
      free_slots_.push_back(first + i);
      ++num_fill_failed_;
      fill_status_.Update(statuses[i]);
    }
  }
  num_fill_done_ += statuses.size();
  fill_changed_.NotifyAll();
}

void HostTier::Arena::AwaitFill() {
  uint64_t done = 0;
  while (done < num_slots_) {
    {
      MutexLock lock(mutex_);
      while (num_fill_done_ == done) fill_changed_.Wait(mutex_);
      done = num_fill_done_;
    }
    if (options_.on_progress) options_.on_progress(done * stride_, num_slots_ * stride_);
  }
  MutexLock lock(mutex_);
  if (num_fill_failed_ == 0) return;
  logger_.Warning("experts could not be read and are tried again when they are needed",
                  {{"experts", num_fill_failed_}, {"first", fill_status_.message()}});
}

// Reading on demand.

void HostTier::Arena::Fetch(ExpertId id, bool is_urgent, Done done) {
  const ExpertPackHeader& header = pack_.header();
  PREGATE_CHECK(id.layer < header.num_layers && id.expert < header.num_experts, ToString(id));
  Read read{.record = id.Flat(header.num_experts)};
  bool is_ready = false;
  {
    MutexLock lock(mutex_);
    Record& record = records_[read.record];
    is_ready = record.state == State::kReady;
    if (is_ready) {
      read.slot = record.slot;
      if (record.num_pins++ == 0) ++num_pinned_;
      Unlink(read.record);
      LinkNewest(read.record);
    } else if (!is_closing_) {
      record.waiters.push_back(std::move(done));
      Enqueue(read.record, is_urgent);
      return;
    }
  }
  if (is_ready) {
    done(Pinned(read, /*from_disk=*/false));
  } else {
    done(absl::CancelledError(absl::StrCat("expert ", ToString(id), ": the host tier is closing")));
  }
}

void HostTier::Arena::Enqueue(uint32_t index, bool is_urgent) {
  Record& record = records_[index];
  if (record.state == State::kReading) return;
  if (record.state == State::kQueued) {
    const bool was_urgent = !std::get<0>(record.place);
    if (was_urgent || !is_urgent) return;
    queue_.erase(record.place);
  }
  record.state = State::kQueued;
  record.place = Place(!is_urgent, turn_++, index);
  queue_.insert(record.place);
  has_read_.NotifyOne();
}

void HostTier::Arena::Serve() {
  while (const std::optional<Read> read = NextRead()) {
    const ExpertId id = Id(read->record);
    absl::Status status = pack_.Read(id.layer, id.expert, Strides(read->slot, 1));
    OnRead(*read, Retry(*read, std::move(status)));
  }
}

std::optional<HostTier::Arena::Read> HostTier::Arena::NextRead() {
  MutexLock lock(mutex_);
  while (!is_closing_ && (queue_.empty() || !HasSlot())) has_read_.Wait(mutex_);
  if (is_closing_) return std::nullopt;
  const uint32_t index = std::get<2>(*queue_.begin());
  queue_.erase(queue_.begin());
  Record& record = records_[index];
  record.state = State::kReading;
  record.slot = TakeSlot();
  return Read{.record = index, .slot = record.slot};
}

absl::Status HostTier::Arena::Retry(const Read& read, absl::Status status) {
  if (status.ok()) {
    reads_ok_.Add();
    return status;
  }
  const ExpertId id = Id(read.record);
  for (uint32_t attempt = 1; attempt < options_.num_attempts; ++attempt) {
    status = pack_.Read(id.layer, id.expert, Strides(read.slot, 1));
    if (status.ok()) {
      reads_retried_.Add();
      return status;
    }
  }
  reads_failed_.Add();
  return status;
}

void HostTier::Arena::OnRead(const Read& read, const absl::Status& status) {
  std::vector<Done> waiters;
  {
    MutexLock lock(mutex_);
    Record& record = records_[read.record];
    waiters = std::exchange(record.waiters, {});
    if (status.ok()) {
      MakeReady(read.record, read.slot);
      record.num_pins = static_cast<uint32_t>(waiters.size());
      ++num_pinned_;  // it was read for somebody
    } else {
      record.state = State::kAbsent;
      free_slots_.push_back(read.slot);
      has_read_.NotifyOne();
    }
  }
  for (const Done& done : waiters) {
    if (status.ok()) {
      done(Pinned(read, /*from_disk=*/true));
    } else {
      done(status);
    }
  }
}

HostRecord HostTier::Arena::Pinned(const Read& read, bool from_disk) {
  return HostRecord(Strides(read.slot, 1).first(pack_.header().record_bytes),
                    from_disk,
                    [this, index = read.record] { Unpin(index); });
}

void HostTier::Arena::Unpin(uint32_t index) {
  MutexLock lock(mutex_);
  if (--records_[index].num_pins > 0) return;
  --num_pinned_;
  if (!queue_.empty()) has_read_.NotifyOne();
}

// Slots.

bool HostTier::Arena::HasSlot() const { return !free_slots_.empty() || num_pinned_ < num_ready_; }

uint32_t HostTier::Arena::TakeSlot() {
  if (!free_slots_.empty()) {
    const uint32_t slot = free_slots_.back();
    free_slots_.pop_back();
    return slot;
  }
  uint32_t victim = oldest_;
  while (records_[victim].num_pins > 0) victim = records_[victim].newer;
  Unlink(victim);
  --num_ready_;
  records_[victim].state = State::kAbsent;
  return records_[victim].slot;
}

void HostTier::Arena::MakeReady(uint32_t index, uint32_t slot) {
  records_[index].state = State::kReady;
  records_[index].slot = slot;
  LinkNewest(index);
  ++num_ready_;
}

void HostTier::Arena::LinkNewest(uint32_t index) {
  records_[index].older = newest_;
  records_[index].newer = kNone;
  (newest_ == kNone ? oldest_ : records_[newest_].newer) = index;
  newest_ = index;
}

void HostTier::Arena::Unlink(uint32_t index) {
  const Record& record = records_[index];
  (record.older == kNone ? oldest_ : records_[record.older].newer) = record.newer;
  (record.newer == kNone ? newest_ : records_[record.newer].older) = record.older;
}

void HostTier::Arena::VisitStats(StatsVisitor& visitor) const {
  uint64_t num_ready = 0;
  {
    MutexLock lock(mutex_);
    num_ready = num_ready_;
  }
  visitor.OnGauge(
      "expert_host_bytes", kBytesHelp, {{"kind", "capacity"}}, static_cast<double>(arena_bytes()));
  visitor.OnGauge("expert_host_bytes",
                  kBytesHelp,
                  {{"kind", "resident"}},
                  static_cast<double>(num_ready * stride_));
  visitor.OnCounter("expert_disk_reads_total", kReadsHelp, {{"result", "ok"}}, reads_ok_.value());
  visitor.OnCounter(
      "expert_disk_reads_total", kReadsHelp, {{"result", "retried"}}, reads_retried_.value());
  visitor.OnCounter(
      "expert_disk_reads_total", kReadsHelp, {{"result", "failed"}}, reads_failed_.value());
}

}  // namespace pregate
