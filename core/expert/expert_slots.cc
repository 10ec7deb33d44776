#include "core/expert/expert_slots.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/check.h"
#include "core/base/status_macros.h"

namespace pregate {
namespace {

constexpr double kNewLoad = 0.1;  // weight of the latest load in the moving averages

void Average(double& average, double value) {
  average = average == 0 ? value : average + kNewLoad * (value - average);
}

uint64_t LargestRecord(absl::Span<RecordSource* const> sources) {
  uint64_t largest = 0;
  for (const RecordSource* source : sources) {
    largest = std::max(largest, source->header().record_bytes);
  }
  return largest;
}

}  // namespace

ExpertCache::Slots::Slots(std::vector<RecordSource*> sources,
                          const Clock& clock,
                          const Options& options)
    : sources_(std::move(sources)),
      clock_(clock),
      num_layers_(sources_.front()->header().num_layers),
      num_experts_(sources_.front()->header().num_experts),
      max_num_slots_(options.max_num_slots > 0 ? options.max_num_slots
                                               : num_layers_ * num_experts_),
      slot_of_(size_t{num_layers_} * num_experts_, kNone),
      layer_runs_(num_layers_),
      expected_in_(size_t{num_layers_} * num_experts_),
      wanted_slots_(options.num_slots),
      max_hinted_loads_(options.max_hinted_loads),
      drop_after_use_(options.drop_after_use),
      is_unified_(options.is_unified),
      layer_lookups_(num_layers_),
      opened_(clock.Now()),
      load_histogram_{Histogram(ExponentialBounds(50e-6, 2, 0.5)),
                      Histogram(ExponentialBounds(50e-6, 2, 0.5))} {
  flat_ids_.reserve(num_experts_);
  candidates_.reserve(max_num_slots_);
  worth_.reserve(max_num_slots_);
}

absl::Status ExpertCache::Slots::Open(Backend& backend, std::unique_ptr<EvictionPolicy> policy) {
  PREGATE_ASSIGN_OR_RETURN(slab_, Slab::Create(backend, LargestRecord(sources_), max_num_slots_));
  PREGATE_ASSIGN_OR_RETURN(copy_stream_, backend.CreateStream("expert copies"));
  MutexLock lock(mutex_);
  policy_ = std::move(policy);
  transfers_ = std::make_unique<TransferQueue>(*copy_stream_);
  PREGATE_RETURN_IF_ERROR(slab_->Resize(wanted_slots_));
  slots_.resize(wanted_slots_);
  transfer_thread_ = std::make_unique<Thread>("transfers", [this] { RunTransfers(); });
  return absl::OkStatus();
}

ExpertCache::Slots::~Slots() {
  {
    MutexLock lock(mutex_);
    // What is still being fetched would come back to nobody.
    while (fetches_ > 0) changed_.Wait(mutex_);
    is_closing_ = true;
    has_work_.NotifyAll();
  }
  transfer_thread_.reset();
  if (copy_stream_ != nullptr) copy_stream_->Synchronize().IgnoreError();
}

// --- loads ---

std::shared_ptr<ExpertLoad> ExpertCache::Slots::BeginLoad(uint32_t expert,
                                                          uint32_t slot_index,
                                                          bool is_urgent) {
  auto load = std::make_shared<ExpertLoad>();
  load->begun = clock_.Now();
  load->expert = expert;
  load->slot = slot_index;
  load->encoding = encoding_;
  load->began_urgent = is_urgent;
  load->is_urgent = is_urgent;
  load->is_hinted = !is_urgent;
  Slot& slot = slots_[slot_index];
  slot.state = Slot::State::kLoading;
  slot.expert = expert;
  slot.encoding = encoding_;
  slot.load = load;
  slot.is_unused_hint = !is_urgent;
  slot_of_[expert] = slot_index;
  policy_->OnInsert(expert);
  ++fetches_;
  return load;
}

void ExpertCache::Slots::Fetch(const std::shared_ptr<ExpertLoad>& load) {
  sources_[load->encoding]->Fetch(
      ExpertId::FromFlat(load->expert, num_experts_),
      load->began_urgent,
      [this, load](absl::StatusOr<HostRecord> record) { OnFetched(load, std::move(record)); });
}

void ExpertCache::Slots::OnFetched(const std::shared_ptr<ExpertLoad>& load,
                                   absl::StatusOr<HostRecord> record) {
  MutexLock lock(mutex_);
  --fetches_;
  changed_.NotifyAll();
  if (load->is_cancelled) return;
  if (!record.ok()) {
    FailLoad(*load, record.status());
    return;
  }
  load->from_disk = record->from_disk();
  load->transfer = std::make_shared<Transfer>();
  load->transfer->slot = load->slot;
  load->transfer->to = Address(load->slot);
  for (const Use& use : slots_[load->slot].last_uses) load->transfer->after.push_back(use.done);
  load->transfer->record = *std::move(record);
  load->transfer->is_urgent = load->is_urgent;
  transfers_->Add(load->transfer);
  NoteIssued(*load);
  has_work_.NotifyAll();
}

void ExpertCache::Slots::NoteIssued(ExpertLoad& load) {
  if (load.issued_as != 0 || load.transfer == nullptr || !load.transfer->is_issued()) return;
  load.issued_as = next_issue_++;
  slots_[load.slot].ready = load.transfer->ready;
  changed_.NotifyAll();
}

void ExpertCache::Slots::FinishLoad(Slot& slot) {
  slot.state = Slot::State::kReady;
  slot.ready = Event();  // the host has seen it pass: nobody has to look at it again
  if (slot.load->is_hinted) --hinted_loads_;
  slot.load.reset();
  changed_.NotifyAll();
}

void ExpertCache::Slots::FailLoad(ExpertLoad& load, absl::Status status) {
  load.status = std::move(status);
  Slot& slot = slots_[load.slot];
  if (load.is_hinted) --hinted_loads_;
  if (slot.is_unused_hint) SettleHint(slot, hinted_.wasted);
  FreeSlot(slot);
  changed_.NotifyAll();
}

bool ExpertCache::Slots::CancelLoad(ExpertLoad& load) {
  if (load.transfer != nullptr && !transfers_->Cancel(load.transfer)) return false;
  load.is_cancelled = true;
  Slot& slot = slots_[load.slot];
  if (load.is_hinted) --hinted_loads_;
  if (slot.is_unused_hint) SettleHint(slot, hinted_.cancelled);
  FreeSlot(slot);
  return true;
}

void ExpertCache::Slots::RunTransfers() {
  TimePoint link_free = clock_.Now();
  for (;;) {
    std::optional<TransferQueue::Piece> piece;
    LentRecord lent;            // goes back once it is used no more, and the lock is released
    Event& in_use = lent.done;  // or of a slot that is to go
    {
      MutexLock lock(mutex_);
      while (!(piece = transfers_->Oldest()).has_value() && !FindDrained(in_use) &&
             !TakeLent(lent)) {
        if (is_closing_) return;
        has_work_.Wait(mutex_);
      }
    }
    if (!piece.has_value()) {
      in_use.BlockUntilReady().IgnoreError();
      continue;
    }
    const absl::Status status = piece->event.BlockUntilReady();
    HostRecord copied;  // goes back once the lock is released
    MutexLock lock(mutex_);
    transfers_->Retire();
    transfers_->Pump();
    Slot& slot = slots_[piece->transfer->slot];
    // A load whose copy has begun stays in its slot until here.
    const std::shared_ptr<ExpertLoad> load = slot.load;
    PREGATE_CHECK(load != nullptr && load->transfer == piece->transfer);
    NoteIssued(*load);
    if (!piece->is_last) continue;
    const TimePoint now = clock_.Now();
    CountLoad(*load, std::max(link_free, piece->transfer->begun), now);
    link_free = now;
    copied = std::move(piece->transfer->record);
    if (status.ok()) {
      FinishLoad(slot);
    } else {
      FailLoad(
          *load,
          absl::InternalError(absl::StrCat("expert ",
                                           ToString(ExpertId::FromFlat(load->expert, num_experts_)),
                                           " could not be copied to the device: ",
                                           status.message())));
    }
    // Used and given back before its end was noted, it goes now.
    DropUsed(load->slot);
    if (load->slot >= wanted_slots_) Drain();
  }
}

void ExpertCache::Slots::CountLoad(const ExpertLoad& load, TimePoint begun, TimePoint ended) {
  const uint64_t bytes = RecordBytes(load.encoding);
  const double seconds = ToSeconds(ended - begun);
  Average(load_seconds_, seconds);
  Average(load_bytes_, static_cast<double>(bytes));
  link_seconds_ += seconds;
  load_histogram_[load.from_disk ? 1 : 0].Observe(ToSeconds(ended - load.begun));
  loaded_bytes_[load.from_disk ? 1 : 0][load.is_hinted ? 1 : 0] += bytes;
}

void ExpertCache::Slots::SettleHint(Slot& slot, uint64_t& outcome) {
  PREGATE_CHECK(slot.is_unused_hint);
  slot.is_unused_hint = false;
  hinted_.pending -= RecordBytes(slot.encoding);
  outcome += RecordBytes(slot.encoding);
}

// --- slots ---

void ExpertCache::Slots::FreeSlot(Slot& slot) {
  if (slot.expert != kNone) slot_of_[slot.expert] = kNone;
  slot.state = Slot::State::kFree;
  slot.expert = kNone;
  slot.load.reset();
  slot.is_unused_hint = false;
}

void ExpertCache::Slots::Evict(uint32_t index) {
  Slot& slot = slots_[index];
  PREGATE_CHECK(slot.state == Slot::State::kReady && slot.pins == 0);
  ++evictions_;
  if (slot.is_unused_hint) SettleHint(slot, hinted_.wasted);
  FreeSlot(slot);
}

void ExpertCache::Slots::DropUsed(uint32_t index) {
  const Slot& slot = slots_[index];
  if (drop_after_use_ && slot.state == Slot::State::kReady && slot.pins == 0 &&
      !slot.is_unused_hint) {
    Evict(index);
  }
}

bool ExpertCache::Slots::IsExpected(uint32_t expert) const {
  return expected_in_[expert] == layer_runs_[expert / num_experts_] + 1;
}

uint32_t ExpertCache::Slots::FindFreeSlot() const {
  for (uint32_t i = 0; i < std::min<size_t>(wanted_slots_, slots_.size()); ++i) {
    if (slots_[i].state == Slot::State::kFree && slots_[i].pins == 0) return i;
  }
  return kNone;
}

uint32_t ExpertCache::Slots::FindVictim(bool for_hint) {
  candidates_.clear();
  for (uint32_t i = 0; i < std::min<size_t>(wanted_slots_, slots_.size()); ++i) {
    const Slot& slot = slots_[i];
    if (slot.state != Slot::State::kReady || slot.pins > 0) continue;
    if (for_hint && IsExpected(slot.expert)) continue;
    candidates_.push_back(slot.expert);
  }
  if (candidates_.empty()) return kNone;
  worth_.resize(candidates_.size());
  policy_->Rank(candidates_, absl::MakeSpan(worth_));
  size_t least = 0;
  for (size_t i = 1; i < candidates_.size(); ++i) {
    // What a hint expects goes only when nothing else can.
    const std::pair<bool, float> worth = {IsExpected(candidates_[i]), worth_[i]};
    const std::pair<bool, float> lowest = {IsExpected(candidates_[least]), worth_[least]};
    if (worth < lowest || (worth == lowest && candidates_[i] < candidates_[least])) least = i;
  }
  worth_[0] = worth_[least];
  return slot_of_[candidates_[least]];
}

uint32_t ExpertCache::Slots::TakeSlot() {
  if (const uint32_t slot = FindFreeSlot(); slot != kNone) return slot;
  if (const uint32_t victim = FindVictim(/*for_hint=*/false); victim != kNone) {
    Evict(victim);
    return victim;
  }
  // A guess that has not begun gives way to a need.
  for (uint32_t i = 0; i < std::min<size_t>(wanted_slots_, slots_.size()); ++i) {
    Slot& slot = slots_[i];
    if (slot.state == Slot::State::kLoading && slot.pins == 0 && CancelLoad(*slot.load)) return i;
  }
  return kNone;
}

uint32_t ExpertCache::Slots::TakeSlotForHint(float probability) {
  if (const uint32_t slot = FindFreeSlot(); slot != kNone) return slot;
  const uint32_t victim = FindVictim(/*for_hint=*/true);
  if (victim == kNone) return kNone;
  if (policy_->ranks_by_use() && worth_[0] >= probability) return kNone;
  Evict(victim);
  return victim;
}

void ExpertCache::Slots::Drain() {
  for (uint32_t i = wanted_slots_; i < slots_.size(); ++i) {
    Slot& slot = slots_[i];
    if (slot.pins > 0) continue;
    if (slot.state == Slot::State::kReady) Evict(i);
    if (slot.state == Slot::State::kLoading) CancelLoad(*slot.load);
  }
  has_work_.NotifyAll();
}

bool ExpertCache::Slots::FindDrained(Event& in_use) {
  if (slots_.size() <= wanted_slots_) return false;
  for (uint32_t i = wanted_slots_; i < slots_.size(); ++i) {
    if (slots_[i].state != Slot::State::kFree || slots_[i].pins > 0) return false;
    for (const Use& use : slots_[i].last_uses) {
      if (use.done.Ready()) continue;
      in_use = use.done;
      return true;
    }
  }
  slots_.resize(wanted_slots_);
  // Memory that cannot be given back is kept: there is nobody to tell, and nothing is wrong.
  slab_->Resize(wanted_slots_).IgnoreError();
  changed_.NotifyAll();
  return false;
}

bool ExpertCache::Slots::TakeLent(LentRecord& lent) {
  if (lent_.empty()) return false;
  lent = std::move(lent_.front());
  lent_.pop_front();
  return true;
}

}  // namespace pregate
