// Look-ups and leases: the consumer's side of the slots.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/check.h"
#include "core/base/status_macros.h"
#include "core/expert/expert_slots.h"

namespace pregate {

absl::Status ExpertCache::Slots::CheckIds(absl::Span<const ExpertId> ids) const {
  if (ids.empty()) return absl::InvalidArgumentError("no experts were asked for");
  for (const ExpertId& id : ids) {
    if (id.layer == ids.front().layer && id.layer < num_layers_ && id.expert < num_experts_) {
      continue;
    }
    return absl::InvalidArgumentError(absl::StrCat("expert ",
                                                   ToString(id),
                                                   " was asked for with those of layer ",
                                                   ids.front().layer,
                                                   "; there are ",
                                                   num_layers_,
                                                   " layers of ",
                                                   num_experts_));
  }
  return absl::OkStatus();
}

std::unique_ptr<ExpertLease::State> ExpertCache::Slots::TakeLease(Stream& consumer,
                                                                  size_t num_ids) {
  std::unique_ptr<LeaseState> lease;
  if (idle_leases_.empty()) {
    lease = std::make_unique<LeaseState>();
  } else {
    lease = std::move(idle_leases_.back());
    idle_leases_.pop_back();
  }
  lease->slots = this;
  lease->consumer = &consumer;
  lease->is_unified = is_unified_;
  lease->items.clear();
  lease->items.resize(num_ids);
  lease->lookups.assign(num_ids, Lookup::kHit);
  lease->in_use.clear();
  lease->num_left = num_ids;
  lease->num_fetching = 0;
  lease->demanded_bytes = 0;
  lease->stall = {};
  return lease;
}

absl::StatusOr<std::unique_ptr<ExpertLease::State>> ExpertCache::Slots::Acquire(
    absl::Span<const ExpertId> ids, Stream& consumer) {
  PREGATE_RETURN_IF_ERROR(CheckIds(ids));
  std::unique_ptr<LeaseState> lease;
  std::vector<std::shared_ptr<ExpertLoad>> to_fetch;
  {
    MutexLock lock(mutex_);
    lease = TakeLease(consumer, ids.size());
    for (size_t i = 0; i < ids.size(); ++i) lease->items[i].expert = ids[i].Flat(num_experts_);
    BeginLayer(ids.front().layer, *lease);
    if (!lease->is_unified) {
      for (size_t i = 0; i < ids.size(); ++i) {
        lease->lookups[i] = LookUp(lease->items[i]);
        ++layer_lookups_[ids.front().layer][static_cast<size_t>(lease->lookups[i])];
        if (lease->lookups[i] == Lookup::kMiss) lease->demanded_bytes += RecordBytes(encoding_);
      }
      demanded_bytes_ += lease->demanded_bytes;
      StartWaiting(*lease, to_fetch);
    }
  }
  if (lease->is_unified) FetchUnified(*lease, ids);
  for (const auto& load : to_fetch) Fetch(load);
  return lease;
}

void ExpertCache::Slots::BeginLayer(uint32_t layer, const LeaseState& lease) {
  ++layer_runs_[layer];
  flat_ids_.clear();
  for (const LeaseState::Item& item : lease.items) flat_ids_.push_back(item.expert);
  policy_->OnLookup(layer, flat_ids_);
  if (!drop_after_use_) return;
  // Without a cache beyond the step, what was expected here and is not needed goes now.
  for (uint32_t i = 0; i < slots_.size(); ++i) {
    const Slot& slot = slots_[i];
    if (slot.state == Slot::State::kReady && slot.pins == 0 && slot.is_unused_hint &&
        slot.expert / num_experts_ == layer &&
        std::find(flat_ids_.begin(), flat_ids_.end(), slot.expert) == flat_ids_.end()) {
      Evict(i);
    }
  }
}

bool ExpertCache::Slots::IsToBeRefreshed(const Slot& slot) {
  if (slot.encoding <= encoding_ || slot.state != Slot::State::kReady || slot.pins > 0 ||
      slot.is_unused_hint) {
    return false;
  }
  const TimePoint now = clock_.Now();
  if (ToSeconds(now - refreshed_) < kRefreshShare * load_seconds_) return false;
  refreshed_ = now;
  return true;
}

Lookup ExpertCache::Slots::LookUp(LeaseState::Item& item) {
  const uint32_t index = slot_of_[item.expert];
  const bool is_refresh = index != kNone && IsToBeRefreshed(slots_[index]);
  if (is_refresh) Evict(index);
  if (index == kNone || is_refresh) {
    item.stage = LeaseState::Item::Stage::kWaiting;
    return Lookup::kMiss;
  }
  Slot& slot = slots_[index];
  ++slot.pins;
  item.slot = index;
  const bool is_ready =
      slot.state == Slot::State::kReady || (slot.load->issued_as != 0 && slot.ready.Ready());
  if (is_ready) {
    if (slot.is_unused_hint) SettleHint(slot, hinted_.useful);
    item.stage = LeaseState::Item::Stage::kResident;
    item.load = slot.load;
    return Lookup::kHit;
  }
  item.stage = LeaseState::Item::Stage::kLoading;
  item.load = slot.load;
  ExpertLoad& load = *slot.load;
  const bool has_begun = load.transfer == nullptr || load.transfer->issued_bytes > 0;
  if (slot.is_unused_hint) SettleHint(slot, has_begun ? hinted_.late : hinted_.cancelled);
  if (!load.is_urgent) {
    load.is_urgent = true;
    if (load.transfer != nullptr) transfers_->Hurry(load.transfer);
    if (!has_begun) {
      // Nothing of the guess came true: the copy is made because it is needed.
      load.is_hinted = false;
      --hinted_loads_;
    }
    NoteIssued(load);
    has_work_.NotifyAll();
  }
  return has_begun ? Lookup::kLateHit : Lookup::kMiss;
}

void ExpertCache::Slots::StartWaiting(LeaseState& lease,
                                      std::vector<std::shared_ptr<ExpertLoad>>& to_fetch) {
  for (LeaseState::Item& item : lease.items) {
    if (item.stage != LeaseState::Item::Stage::kWaiting) continue;
    // Another lease or a hint may have begun to load it meanwhile.
    LookUp(item);
    if (item.stage != LeaseState::Item::Stage::kWaiting) continue;
    const uint32_t slot = TakeSlot();
    if (slot == kNone) return;
    item.load = BeginLoad(item.expert, slot, /*is_urgent=*/true);
    item.slot = slot;
    item.stage = LeaseState::Item::Stage::kLoading;
    ++slots_[slot].pins;
    to_fetch.push_back(item.load);
  }
}

ExpertLease::State::Item* ExpertCache::Slots::FindNext(LeaseState& lease) {
  LeaseState::Item* next = nullptr;
  for (LeaseState::Item& item : lease.items) {
    if (item.stage == LeaseState::Item::Stage::kResident) return &item;
    if (item.stage != LeaseState::Item::Stage::kLoading) continue;
    if (lease.is_unified) {
      if (item.record.has_value()) return &item;
      continue;
    }
    if (!item.load->status.ok()) return &item;
    if (item.load->issued_as == 0) continue;
    if (next == nullptr || item.load->issued_as < next->load->issued_as) next = &item;
  }
  return next;
}

void ExpertCache::Slots::GiveBack(LeaseState::Item& item) {
  Slot& slot = slots_[item.slot];
  --slot.pins;
  item.load.reset();
  DropUsed(item.slot);
  if (item.slot >= wanted_slots_) Drain();
  changed_.NotifyAll();
}

void ExpertCache::Slots::ReleaseLast(LeaseState& lease) {
  if (lease.in_use.empty()) return;
  // What the consumer was given for them is behind this point.
  const Event used = lease.consumer->Record();
  if (lease.is_unified) {
    LendRecords(lease, used);
  } else {
    MutexLock lock(mutex_);
    for (const ExpertLease::Expert& expert : lease.in_use) {
      LeaseState::Item& last = lease.items[expert.index];
      NoteUse(slots_[last.slot], lease.consumer, used);
      GiveBack(last);
    }
  }
  lease.in_use.clear();
}

void ExpertCache::Slots::LendRecords(LeaseState& lease, const Event& used) {
  const bool is_over = used.Ready();
  for (const ExpertLease::Expert& expert : lease.in_use) {
    std::optional<absl::StatusOr<HostRecord>>& record = lease.items[expert.index].record;
    if (record->ok() && !is_over) {
      MutexLock lock(mutex_);
      lent_.push_back({.done = used, .record = std::move(**record)});
      has_work_.NotifyAll();
    }
    record.reset();
  }
}

void ExpertCache::Slots::NoteUse(Slot& slot, const Stream* consumer, Event done) {
  const auto is_over = [consumer](const Use& use) {
    return use.consumer == consumer || use.done.Ready();
  };
  slot.last_uses.erase(std::remove_if(slot.last_uses.begin(), slot.last_uses.end(), is_over),
                       slot.last_uses.end());
  if (done.state() == nullptr) return;  // of a consumer whose work is done when it has given it
  slot.last_uses.push_back({.consumer = consumer, .done = std::move(done)});
}

bool ExpertCache::Slots::IsAtHand(const LeaseState& lease, const LeaseState::Item& item) const {
  if (item.stage == LeaseState::Item::Stage::kResident) return true;
  if (item.stage != LeaseState::Item::Stage::kLoading) return false;
  if (lease.is_unified) return item.record.has_value();
  if (!item.load->status.ok()) return true;
  return item.load->issued_as != 0 && slots_[item.slot].ready.Ready();
}

bool ExpertCache::Slots::AwaitNext(LeaseState& lease, size_t most) {
  std::vector<std::shared_ptr<ExpertLoad>> to_fetch;
  for (;;) {
    {
      MutexLock lock(mutex_);
      if (!lease.is_unified) StartWaiting(lease, to_fetch);
      if (to_fetch.empty()) {
        LeaseState::Item* const next = FindNext(lease);
        if (next == nullptr) {
          changed_.Wait(mutex_);
          continue;
        }
        const bool is_resident = next->stage == LeaseState::Item::Stage::kResident;
        Take(lease, *next);
        for (auto item = lease.items.begin();
             item != lease.items.end() && lease.in_use.size() < most;
             ++item) {
          if (IsAtHand(lease, *item)) Take(lease, *item);
        }
        return is_resident;
      }
    }
    for (const auto& load : to_fetch) Fetch(load);
    to_fetch.clear();
  }
}

void ExpertCache::Slots::Take(LeaseState& lease, LeaseState::Item& item) {
  if (!item.record.has_value()) {
    const Slot& slot = slots_[item.slot];
    if (item.load != nullptr) item.status = item.load->status;
    item.ready = slot.ready;
    item.encoding = slot.encoding;
  }
  item.stage = LeaseState::Item::Stage::kYielded;
  --lease.num_left;
  ExpertLease::Expert& expert = lease.in_use.emplace_back();
  expert.index = static_cast<size_t>(&item - lease.items.data());
  expert.encoding = item.encoding;
}

void ExpertCache::Slots::HandOver(LeaseState& lease, ExpertLease::Expert& expert) {
  const LeaseState::Item& item = lease.items[expert.index];
  if (item.record.has_value()) {
    expert.status = item.record->status();
    if (expert.status.ok()) expert.record = (*item.record)->bytes().data();
    return;
  }
  expert.status = item.status;
  if (expert.status.ok() && !item.ready.Ready()) lease.consumer->Wait(item.ready);
  // A consumer that waits on the host sees at once that a copy has failed.
  if (expert.status.ok() && item.ready.Ready()) expert.status = item.ready.BlockUntilReady();
  if (expert.status.ok()) expert.record = Address(item.slot);
}

absl::Span<const ExpertLease::Expert> ExpertCache::Slots::NextGroup(LeaseState& lease,
                                                                    size_t most) {
  ReleaseLast(lease);
  if (lease.num_left == 0) return {};
  const TimePoint asked = clock_.Now();
  const bool were_resident = AwaitNext(lease, most);
  for (ExpertLease::Expert& expert : lease.in_use) HandOver(lease, expert);
  if (!were_resident) {
    const Duration stall = clock_.Now() - asked;
    lease.stall += stall;
    MutexLock lock(mutex_);
    stall_ += stall;
  }
  return lease.in_use;
}

void ExpertCache::Slots::EndLease(std::unique_ptr<LeaseState> lease) {
  ReleaseLast(*lease);
  if (lease->is_unified) {
    AwaitRecords(*lease);
    lease->items.clear();  // with the records that were not yielded
  }
  MutexLock lock(mutex_);
  for (LeaseState::Item& item : lease->items) {
    if (item.stage == LeaseState::Item::Stage::kResident ||
        item.stage == LeaseState::Item::Stage::kLoading) {
      GiveBack(item);
    }
  }
  idle_leases_.push_back(std::move(lease));
}

// --- without slots ---

void ExpertCache::Slots::AwaitRecords(const LeaseState& lease) {
  MutexLock lock(mutex_);
  // On their way into the lease itself, they have nowhere else to go.
  while (lease.num_fetching > 0) changed_.Wait(mutex_);
}

void ExpertCache::Slots::FetchUnified(LeaseState& lease, absl::Span<const ExpertId> ids) {
  uint32_t encoding;
  {
    MutexLock lock(mutex_);
    encoding = encoding_;
    lease.num_fetching = static_cast<uint32_t>(ids.size());
    fetches_ += lease.num_fetching;
  }
  for (size_t i = 0; i < ids.size(); ++i) {
    LeaseState::Item& item = lease.items[i];
    item.lease = &lease;
    item.encoding = encoding;
    item.stage = LeaseState::Item::Stage::kLoading;
    // Two pointers: no more fit into a std::function without an allocation.
    sources_[encoding]->Fetch(
        ids[i], /*is_urgent=*/true, [this, item = &item](absl::StatusOr<HostRecord> record) {
          OnRecord(*item, std::move(record));
        });
  }
  MutexLock lock(mutex_);
  for (size_t i = 0; i < ids.size(); ++i) {
    const LeaseState::Item& item = lease.items[i];
    const bool is_hit = item.stage == LeaseState::Item::Stage::kResident;
    lease.lookups[i] = is_hit ? Lookup::kHit : Lookup::kMiss;
    if (!is_hit) lease.demanded_bytes += RecordBytes(encoding);
    ++layer_lookups_[ids[i].layer][static_cast<size_t>(lease.lookups[i])];
  }
  demanded_bytes_ += lease.demanded_bytes;
}

void ExpertCache::Slots::OnRecord(LeaseState::Item& item, absl::StatusOr<HostRecord> record) {
  MutexLock lock(mutex_);
  if (record.ok()) {
    if (record->from_disk()) {
      loaded_bytes_[1][0] += record->bytes().size();
    } else {
      item.stage = LeaseState::Item::Stage::kResident;
    }
  }
  item.record = std::move(record);
  --item.lease->num_fetching;
  --fetches_;
  changed_.NotifyAll();
}

}  // namespace pregate
