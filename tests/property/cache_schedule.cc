#include "tests/property/cache_schedule.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <numeric>
#include <optional>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/check.h"
#include "core/base/status_macros.h"
#include "core/expert/transfer_queue.h"

namespace pregate {
namespace {

constexpr uint32_t kLayers = 2;
constexpr uint32_t kExperts = 5;
constexpr uint32_t kMaxSlots = 7;
constexpr size_t kMaxLeases = 3;
// One goes to the device in a piece, the other in two.
const std::vector<uint64_t> kRecordBytes = {5000, TransferQueue::kPieceBytes + 70'000};

// How many loads the cache has seen end.
class NotedLoads final : public StatsVisitor {
 public:
  void OnCounter(absl::string_view, absl::string_view, const Labels&, double) override {}
  void OnGauge(absl::string_view, absl::string_view, const Labels&, double) override {}
  void OnHistogram(absl::string_view name,
                   absl::string_view /*help*/,
                   const Labels& /*labels*/,
                   const Histogram::Snapshot& snapshot) override {
    if (name != "expert_load_seconds") return;
    for (const uint64_t count : snapshot.bucket_counts) count_ += count;
  }
  uint64_t count() const { return count_; }

 private:
  uint64_t count_ = 0;
};

}  // namespace

// --- records ---

class ScheduledRecords::Encoding final : public RecordSource {
 public:
  Encoding(ScheduledRecords& records, uint32_t index, uint32_t num_layers, uint64_t record_bytes)
      : records_(records), index_(index) {
    header_.num_layers = num_layers;
    header_.num_experts = records.num_experts_;
    header_.record_bytes = record_bytes;
    const uint32_t count = num_layers * records.num_experts_;
    bytes_.resize(count * record_bytes);
    for (uint32_t i = 0; i < count; ++i) {
      std::fill_n(bytes_.begin() + static_cast<ptrdiff_t>(i * record_bytes),
                  record_bytes,
                  static_cast<std::byte>(1 + i + index * count));
    }
  }

  const ExpertPackHeader& header() const override { return header_; }
  void Fetch(ExpertId id, bool is_urgent, Done done) override {
    records_.OnFetch(index_, id.Flat(header_.num_experts), is_urgent, std::move(done));
  }
  void VisitStats(StatsVisitor&) const override {}

  absl::Span<const std::byte> bytes() const { return bytes_; }

 private:
  ScheduledRecords& records_;
  const uint32_t index_;
  ExpertPackHeader header_;
  std::vector<std::byte> bytes_;
};

ScheduledRecords::ScheduledRecords(uint32_t num_layers,
                                   uint32_t num_experts,
                                   const std::vector<uint64_t>& record_bytes,
                                   HazardChecker& checker,
                                   Mistake mistake)
    : num_experts_(num_experts),
      checker_(checker),
      mistake_(mistake),
      last_fetch_(size_t{num_layers} * num_experts),
      is_needed_(last_fetch_.size()),
      num_pins_(record_bytes.size(), std::vector<uint32_t>(last_fetch_.size())) {
  for (uint32_t i = 0; i < record_bytes.size(); ++i) {
    encodings_.push_back(std::make_unique<Encoding>(*this, i, num_layers, record_bytes[i]));
  }
}

ScheduledRecords::~ScheduledRecords() = default;

std::vector<RecordSource*> ScheduledRecords::sources() {
  std::vector<RecordSource*> sources;
  for (const auto& encoding : encodings_) sources.push_back(encoding.get());
  return sources;
}

absl::Span<const std::byte> ScheduledRecords::record(uint32_t encoding, uint32_t expert) const {
  const uint64_t bytes = encodings_[encoding]->header().record_bytes;
  return encodings_[encoding]->bytes().subspan(expert * bytes, bytes);
}

void ScheduledRecords::OnFetch(uint32_t encoding,
                               uint32_t expert,
                               bool is_urgent,
                               RecordSource::Done done) {
  Held fetch = {.encoding = encoding, .expert = expert, .done = std::move(done)};
  if (is_unified_) return Answer(fetch);
  last_fetch_[expert] = ++num_fetches_;
  if (!is_urgent) hinted_bytes_ += encodings_[encoding]->header().record_bytes;
  {
    MutexLock lock(mutex_);
    is_needed_[expert] = is_urgent;
  }
  if (is_holding_) {
    held_.emplace(num_fetches_, std::move(fetch));
  } else {
    Answer(fetch);
  }
}

uint64_t ScheduledRecords::AnyHeld(std::mt19937_64& random) const {
  if (held_.empty()) return 0;
  return std::next(held_.begin(), static_cast<ptrdiff_t>(random() % held_.size()))->first;
}

void ScheduledRecords::Answer(uint64_t fetch) {
  const Held held = std::move(held_.at(fetch));
  held_.erase(fetch);
  Answer(held);
}

void ScheduledRecords::Answer(const Held& fetch) {
  if (++num_answers_ % one_fails_of_ == 0) {
    fetch.done(absl::DataLossError(absl::StrCat(
        "expert ", ToString(ExpertId::FromFlat(fetch.expert, num_experts_)), ": damaged")));
    return;
  }
  {
    MutexLock lock(mutex_);
    ++num_pins_[fetch.encoding][fetch.expert];
  }
  const auto unpin = [this, encoding = fetch.encoding, expert = fetch.expert] {
    Unpin(encoding, expert);
  };
  const bool is_early = mistake_ == Mistake::kRecordReusedBeforeCopy;
  std::function<void()> release;
  if (!is_early) release = unpin;
  fetch.done(HostRecord(
      record(fetch.encoding, fetch.expert), /*from_disk=*/num_answers_ % 3 == 0, release));
  if (is_early) unpin();
}

void ScheduledRecords::Unpin(uint32_t encoding, uint32_t expert) {
  const absl::Span<const std::byte> bytes = record(encoding, expert);
  MutexLock lock(mutex_);
  if (--num_pins_[encoding][expert] > 0) return;
  checker_.OnHostWrite({.data = bytes.data(), .bytes = bytes.size()}, "the next record from disk");
}

uint64_t ScheduledRecords::num_pins() const {
  MutexLock lock(mutex_);
  uint64_t sum = 0;
  for (const std::vector<uint32_t>& pins : num_pins_) {
    sum += std::accumulate(pins.begin(), pins.end(), uint64_t{0});
  }
  return sum;
}

void ScheduledRecords::Need(uint32_t expert) {
  MutexLock lock(mutex_);
  is_needed_[expert] = true;
}

bool ScheduledRecords::IsNeeded(uint32_t expert) const {
  MutexLock lock(mutex_);
  return is_needed_[expert];
}

ScheduledRecords::Place ScheduledRecords::Find(const std::byte* data) const {
  for (const auto& encoding : encodings_) {
    const absl::Span<const std::byte> bytes = encoding->bytes();
    if (data < bytes.data() || data >= bytes.data() + bytes.size()) continue;
    const uint64_t record_bytes = encoding->header().record_bytes;
    const auto at = static_cast<uint64_t>(data - bytes.data());
    return {.expert = static_cast<uint32_t>(at / record_bytes),
            .offset = at % record_bytes,
            .record_bytes = record_bytes};
  }
  PREGATE_CHECK(false, "a copy of what is no record");
  return {};
}

// --- the device ---

// The stream that the cache copies on. Its owner's calls come one at a time, under a lock.
class WatchedBackend::Copies final : public Stream {
 public:
  Copies(WatchedBackend& backend, std::unique_ptr<ManualStream> stream)
      : backend_(backend), stream_(std::move(stream)) {}

  void CopyAsync(std::byte* to, const std::byte* from, size_t bytes) override {
    const ScheduledRecords::Place place = backend_.records_.Find(from);
    if (place.offset == 0) ++backend_.num_begun_;
    const bool is_needed = backend_.records_.IsNeeded(place.expert);
    if (is_needed) {
      const auto ahead = static_cast<uint32_t>(std::count(
          is_hinted_.begin() + static_cast<ptrdiff_t>(num_done_), is_hinted_.end(), true));
      backend_.most_hinted_ahead_ = std::max(backend_.most_hinted_ahead_.load(), ahead);
    }
    is_hinted_.push_back(!is_needed);
    if (std::byte* const leased = backend_.leased_; leased != nullptr) to = leased;
    stream_->CopyAsync(to, from, bytes);
    stream_->Kernel("end of copy", {}, {}, [this] { ++num_done_; });
    if (place.offset + bytes == place.record_bytes) ++backend_.num_issued_;
  }
  Event Record() override { return stream_->Record(); }
  void Wait(const Event& event) override {
    if (backend_.mistake_ != Mistake::kCopySkipsLastUse) stream_->Wait(event);
  }
  absl::Status Synchronize() override { return stream_->Synchronize(); }

 private:
  WatchedBackend& backend_;
  const std::unique_ptr<ManualStream> stream_;
  std::vector<bool> is_hinted_;  // by copy
  std::atomic<uint64_t> num_done_ = 0;
};

absl::StatusOr<std::unique_ptr<Stream>> WatchedBackend::CreateStream(const std::string& name) {
  return std::make_unique<Copies>(*this, device_.MakeStream(name));
}

// --- the schedule ---

// A stream that kernels are given to, as the cache sees it.
class CacheSchedule::Consumer final : public Stream {
 public:
  Consumer(std::unique_ptr<ManualStream> stream, Mistake mistake)
      : stream_(std::move(stream)), mistake_(mistake) {}

  void CopyAsync(std::byte* to, const std::byte* from, size_t bytes) override {
    stream_->CopyAsync(to, from, bytes);
  }
  Event Record() override { return stream_->Record(); }
  void Wait(const Event& event) override {
    if (mistake_ != Mistake::kKernelSkipsReady) stream_->Wait(event);
  }
  absl::Status Synchronize() override { return stream_->Synchronize(); }
  ManualStream& stream() { return *stream_; }

 private:
  const std::unique_ptr<ManualStream> stream_;
  const Mistake mistake_;
};

struct CacheSchedule::Lease {
  struct Item {
    uint32_t expert = 0;  // flat
    bool is_hit = false;
    bool is_yielded = false;
    uint64_t fetch = 0;  // of the record that comes into this lease's slot; 0: not known
  };
  Lease(ExpertLease lease, Consumer& consumer) : lease(std::move(lease)), consumer(consumer) {}

  ExpertLease lease;
  Consumer& consumer;
  std::vector<Item> items;
  size_t num_left = 0;
  bool is_unified = false;
  uint64_t num_pins = 0;              // records that it holds itself
  uint32_t num_held = 0;              // that it yielded last and that could be had
  std::function<void()> late_kernel;  // kLeaseEndsBeforeKernel
};

CacheSchedule::CacheSchedule(uint64_t seed, Mistake mistake)
    : random_(seed),
      mistake_(mistake),
      device_(ManualBackend::Waiting::kBlocks),
      records_(kLayers, kExperts, kRecordBytes, device_.checker(), mistake),
      backend_(records_, mistake, device_) {
  for (const char* name : {"compute", "compute too"}) {
    consumers_.push_back(std::make_unique<Consumer>(device_.MakeStream(name), mistake));
  }
  ExpertCache::Options options;
  options.num_slots = 1 + static_cast<uint32_t>(random_() % kMaxSlots);
  options.max_num_slots = kMaxSlots;
  options.max_hinted_loads = 4;
  auto cache = ExpertCache::Create(records_.sources(), backend_, clock_, options);
  PREGATE_CHECK(cache.ok(), cache.status().message());
  cache_ = *std::move(cache);
  records_.SetFailing(25);
}

CacheSchedule::~CacheSchedule() {
  device_.SetWaiting(ManualBackend::Waiting::kRunsWork);
  leases_.clear();
  while (const uint64_t fetch = records_.AnyHeld(random_)) records_.Answer(fetch);
  device_.RunUntilIdle(random_());  // no kernel is left that would look into the cache's memory
}

void CacheSchedule::Step() {
  const uint64_t what = random_() % 100;
  if (what < 40) {
    StepStreams();
  } else if (what < 52) {
    if (leases_.size() < kMaxLeases) Acquire();
  } else if (what < 76) {
    if (!leases_.empty()) Yield(*leases_[random_() % leases_.size()]);
  } else if (what < 80) {
    if (!leases_.empty()) EndLease(random_() % leases_.size());
  } else if (what < 88) {
    if (const uint64_t fetch = records_.AnyHeld(random_)) records_.Answer(fetch);
  } else if (what < 96) {
    Hint();
  } else {
    Change();
  }
  Settle();
}

void CacheSchedule::StepStreams() {
  ManualStream* const streams[] = {
      &consumers_[0]->stream(), &consumers_[1]->stream(), device_.FindStream("expert copies")};
  for (uint64_t i = 1 + random_() % 8; i > 0; --i) {
    streams[random_() % 3]->Step();
    Settle();
  }
}

void CacheSchedule::Acquire() {
  const auto layer = static_cast<uint32_t>(random_() % kLayers);
  std::vector<ExpertId> ids;
  for (uint32_t expert = 0; expert < kExperts; ++expert) {
    if (OneIn(3)) ids.push_back({.layer = layer, .expert = expert});
  }
  if (ids.empty()) return;
  for (const ExpertId& id : ids) {
    if (!is_unified_) records_.Need(id.Flat(kExperts));
  }
  const uint64_t before = records_.num_fetches();
  const uint64_t pins_before = records_.num_pins();
  records_.SetHolding(!OneIn(3));
  Consumer& consumer = *consumers_[random_() % consumers_.size()];
  absl::StatusOr<ExpertLease> acquired = cache_->Acquire(ids, consumer);
  PREGATE_CHECK(acquired.ok(), acquired.status().message());
  auto lease = std::make_unique<Lease>(*std::move(acquired), consumer);
  lease->is_unified = is_unified_;
  if (is_unified_) lease->num_pins = records_.num_pins() - pins_before;
  for (size_t i = 0; i < ids.size(); ++i) {
    const Lookup lookup = lease->lease.lookups()[i];
    Lease::Item item;
    item.expert = ids[i].Flat(kExperts);
    item.is_hit = lookup == Lookup::kHit || is_unified_;
    const uint64_t fetch = records_.last_fetch(item.expert);
    if (lookup == Lookup::kLateHit || fetch > before) item.fetch = fetch;
    lease->items.push_back(item);
  }
  lease->num_left = ids.size();
  leases_.push_back(std::move(lease));
}

void CacheSchedule::MakeServable(Lease& lease) {
  const auto is_there = [&](const Lease::Item& item) {
    return !item.is_yielded && (item.is_hit || (item.fetch != 0 && !records_.is_held(item.fetch)));
  };
  if (std::any_of(lease.items.begin(), lease.items.end(), is_there)) return;
  for (const Lease::Item& item : lease.items) {
    if (item.is_yielded || item.fetch == 0) continue;
    records_.Answer(item.fetch);
    return;
  }
  // It has no slot yet: there has to be one, and its record has to come at once.
  uint32_t num_pinned = 0;
  for (const auto& other : leases_) {
    num_pinned += static_cast<uint32_t>(other->num_left) + std::max(1u, other->num_held);
  }
  if (num_pinned >= cache_->Read().num_slots) {
    for (size_t i = leases_.size(); i-- > 0;) {
      if (leases_[i].get() != &lease) EndLease(i);
    }
  }
  RunAll();
  records_.SetHolding(false);
}

void CacheSchedule::Yield(Lease& lease) {
  records_.SetHolding(OneIn(2));
  const uint64_t before = records_.num_fetches();
  if (lease.num_left > 0) MakeServable(lease);
  for (const Lease::Item& item : lease.items) {
    // A hint may have begun to load what this still waits for.
    if (!item.is_yielded && !lease.is_unified) records_.Need(item.expert);
  }
  backend_.set_leased(nullptr);
  // A mistake is made with one expert at a time.
  const size_t most = mistake_ == Mistake::kNone ? 1 + random_() % 4 : 1;
  const absl::Span<const ExpertLease::Expert> group = lease.lease.NextGroup(most);
  if (auto kernel = std::exchange(lease.late_kernel, nullptr)) kernel();
  lease.num_pins -= std::min<uint64_t>(lease.num_pins, std::exchange(lease.num_held, 0));
  PREGATE_CHECK(group.empty() == (lease.num_left == 0) && group.size() <= most);
  for (Lease::Item& item : lease.items) {
    const uint64_t fetch = records_.last_fetch(item.expert);
    if (item.fetch == 0 && fetch > before) item.fetch = fetch;
  }
  lease.num_left -= group.size();
  for (const ExpertLease::Expert& expert : group) {
    PREGATE_CHECK(!std::exchange(lease.items[expert.index].is_yielded, true));
    if (expert.status.ok()) {
      ++lease.num_held;
      Use(lease, expert);
    } else {
      ++num_failed_;
    }
  }
}

void CacheSchedule::Use(Lease& lease, const ExpertLease::Expert& expert) {
  const uint32_t flat = lease.items[expert.index].expert;
  const absl::Span<const std::byte> expected = records_.record(expert.encoding, flat);
  const std::string name = absl::StrCat("expert ", ToString(ExpertId::FromFlat(flat, kExperts)));
  const auto kernel = [this, &stream = lease.consumer.stream(), name, expert, expected] {
    stream.Kernel(name,
                  {{.data = expert.record, .bytes = expected.size()}},
                  {},
                  [this, name, expert, expected] {
                    if (std::memcmp(expert.record, expected.data(), expected.size()) == 0) return;
                    MutexLock lock(mutex_);
                    seen_.Update(absl::InternalError(name + ": its kernel saw other bytes"));
                  });
  };
  ++num_kernels_;
  if (mistake_ == Mistake::kLeaseEndsBeforeKernel) {
    lease.late_kernel = kernel;
  } else {
    kernel();
  }
  if (mistake_ == Mistake::kCopyIntoLeasedSlot && !lease.is_unified) {
    backend_.set_leased(const_cast<std::byte*>(expert.record));  // NOLINT
  }
}

void CacheSchedule::EndLease(size_t index) {
  const std::unique_ptr<Lease> lease = std::move(leases_[index]);
  leases_.erase(leases_.begin() + static_cast<ptrdiff_t>(index));
  backend_.set_leased(nullptr);
  const auto late_kernel = std::exchange(lease->late_kernel, nullptr);
  { const ExpertLease end = std::move(lease->lease); }
  if (late_kernel) late_kernel();
}

void CacheSchedule::Hint() {
  const auto layer = static_cast<uint32_t>(random_() % kLayers);
  std::vector<ExpertHint> hints;
  for (uint64_t i = random_() % 5; i > 0; --i) {
    hints.push_back({.id = {.layer = layer, .expert = static_cast<uint32_t>(random_() % kExperts)},
                     .probability = static_cast<float>(random_() % 101) / 100});
  }
  records_.SetHolding(!OneIn(3));
  cache_->Hint(hints, OneIn(4) ? 1 : UINT32_MAX);
}

void CacheSchedule::Change() {
  const std::vector<std::string> policies = EvictionPolicyNames();
  absl::Status status;
  switch (random_() % 12) {
    case 0:
      cache_->Reset();
      break;
    case 1:
      cache_->CancelHints();
      break;
    case 2:
      status = cache_->SetEviction(policies[random_() % policies.size()]);
      break;
    case 3:
      cache_->SetDropAfterUse(OneIn(3));
      break;
    case 4:
      cache_->SetMaxHintedLoads(static_cast<uint32_t>(random_() % 6));
      break;
    case 5:
      is_unified_ = OneIn(3);
      records_.SetUnified(is_unified_);
      cache_->SetUnified(is_unified_);
      break;
    case 6:
      cache_->SetEncoding(static_cast<uint32_t>(random_() % kRecordBytes.size()));
      break;
    default:
      status = cache_->SetNumSlots(1 + static_cast<uint32_t>(random_() % kMaxSlots));
      break;
  }
  PREGATE_CHECK(status.ok(), status.message());
}

void CacheSchedule::Settle() const {
  const ManualStream& copies = *device_.FindStream("expert copies");
  uint64_t num_pins = 0;
  for (const auto& lease : leases_) num_pins += lease->num_pins;
  for (;;) {
    // It waits for what has not been stepped.
    if (device_.num_sleeping() > 0) return;
    NotedLoads noted;
    cache_->VisitStats(noted);
    if (copies.pending() == 0 && backend_.num_begun() == backend_.num_issued() &&
        noted.count() == backend_.num_issued() && records_.num_pins() == num_pins) {
      return;
    }
    std::this_thread::yield();
  }
}

void CacheSchedule::RunAll() {
  while (const uint64_t fetch = records_.AnyHeld(random_)) records_.Answer(fetch);
  do {
    Settle();
  } while (device_.StepAll() > 0);
}

void CacheSchedule::Finish() {
  while (!leases_.empty()) EndLease(leases_.size() - 1);
  RunAll();
  cache_->CancelHints();
  cache_->Reset();
  const auto has_shrunk = [this] {
    const ExpertCache::Snapshot now = cache_->Read();
    return now.slots.free + now.slots.loading + now.slots.ready == now.num_slots;
  };
  while (!has_shrunk()) std::this_thread::yield();
}

absl::Status CacheSchedule::Check() const {
  PREGATE_RETURN_IF_ERROR(cache_->Validate());
  PREGATE_RETURN_IF_ERROR(device_.checker().status());
  const ExpertCache::HintedBytes hinted = cache_->Read().hinted;
  const uint64_t accounted =
      hinted.useful + hinted.late + hinted.wasted + hinted.cancelled + hinted.pending;
  if (accounted != records_.hinted_bytes()) {
    return absl::InternalError(absl::StrCat(
        accounted, " hinted bytes are accounted for, ", records_.hinted_bytes(), " were fetched"));
  }
  if (backend_.most_hinted_ahead() > TransferQueue::kQueuedPieces) {
    return absl::InternalError(absl::StrCat(
        "a needed load came behind ", backend_.most_hinted_ahead(), " pieces of hinted ones"));
  }
  MutexLock lock(mutex_);
  return seen_;
}

}  // namespace pregate
