// Hints, what operators change, and what is counted.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/check.h"
#include "core/base/status_macros.h"
#include "core/expert/expert_slots.h"

namespace pregate {

uint32_t ExpertCache::Slots::Hint(absl::Span<const ExpertHint> hints, uint32_t max_loads) {
  std::vector<std::shared_ptr<ExpertLoad>> to_fetch;
  {
    MutexLock lock(mutex_);
    if (is_unified_) return 0;
    const auto is_hinted = [&](uint32_t expert) {
      return std::any_of(hints.begin(), hints.end(), [&](const ExpertHint& hint) {
        return hint.id.Flat(num_experts_) == expert;
      });
    };
    const auto is_over = [&](uint32_t index) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      if (index >= slots_.size()) return true;
      const Slot& slot = slots_[index];
      if (slot.load == nullptr || !slot.load->is_hinted) return true;
      return slot.pins == 0 && !is_hinted(slot.expert) && CancelLoad(*slot.load);
    };
    hinted_slots_.erase(std::remove_if(hinted_slots_.begin(), hinted_slots_.end(), is_over),
                        hinted_slots_.end());
    // All that is expected, before anything is evicted for it.
    for (const ExpertHint& hint : hints) {
      PREGATE_CHECK(hint.id.layer < num_layers_ && hint.id.expert < num_experts_);
      expected_in_[hint.id.Flat(num_experts_)] = layer_runs_[hint.id.layer] + 1;
    }
    for (const ExpertHint& hint : hints) {
      if (hinted_loads_ >= max_hinted_loads_ || to_fetch.size() >= max_loads) break;
      const uint32_t expert = hint.id.Flat(num_experts_);
      if (slot_of_[expert] != kNone) continue;
      const uint32_t slot = TakeSlotForHint(hint.probability);
      if (slot == kNone) break;
      to_fetch.push_back(BeginLoad(expert, slot, /*is_urgent=*/false));
      hinted_slots_.push_back(slot);
      ++hinted_loads_;
      hinted_.pending += RecordBytes(encoding_);
    }
  }
  for (const auto& load : to_fetch) Fetch(load);
  return static_cast<uint32_t>(to_fetch.size());
}

absl::Status ExpertCache::Slots::SetNumSlots(uint32_t num_slots) {
  if (num_slots == 0 || num_slots > max_num_slots_) {
    return absl::InvalidArgumentError(
        absl::StrCat(num_slots, " slots were asked for; 1 to ", max_num_slots_, " are allowed"));
  }
  MutexLock lock(mutex_);
  if (num_slots > slots_.size()) {
    PREGATE_RETURN_IF_ERROR(slab_->Resize(num_slots));
    slots_.resize(num_slots);
  }
  wanted_slots_ = num_slots;
  Drain();
  changed_.NotifyAll();
  return absl::OkStatus();
}

void ExpertCache::Slots::SetPolicy(std::unique_ptr<EvictionPolicy> policy) {
  MutexLock lock(mutex_);
  std::swap(policy_, policy);
  for (const Slot& slot : slots_) {
    if (slot.expert != kNone) policy_->OnInsert(slot.expert);
  }
}

void ExpertCache::Slots::SetMaxHintedLoads(uint32_t max_hinted_loads) {
  MutexLock lock(mutex_);
  max_hinted_loads_ = max_hinted_loads;
}

void ExpertCache::Slots::SetDropAfterUse(bool drop_after_use) {
  MutexLock lock(mutex_);
  drop_after_use_ = drop_after_use;
}

void ExpertCache::Slots::SetEncoding(uint32_t source) {
  PREGATE_CHECK(source < sources_.size());
  MutexLock lock(mutex_);
  encoding_ = source;
}

void ExpertCache::Slots::SetUnified(bool is_unified) {
  MutexLock lock(mutex_);
  is_unified_ = is_unified;
}

void ExpertCache::Slots::Reset() {
  MutexLock lock(mutex_);
  for (uint32_t i = 0; i < slots_.size(); ++i) {
    Slot& slot = slots_[i];
    if (slot.pins > 0) continue;
    if (slot.state == Slot::State::kReady) Evict(i);
    if (slot.state == Slot::State::kLoading) CancelLoad(*slot.load);
  }
}

double ExpertCache::Slots::load_seconds() const {
  MutexLock lock(mutex_);
  return load_seconds_;
}

ExpertCache::Pace ExpertCache::Slots::ReadPace() const {
  MutexLock lock(mutex_);
  return {.load_seconds = load_seconds_,
          .stall_seconds = ToSeconds(stall_),
          .demanded_bytes = demanded_bytes_,
          .hinted = hinted_};
}

ExpertCache::Snapshot ExpertCache::Slots::Read() const {
  MutexLock lock(mutex_);
  Snapshot snapshot;
  snapshot.num_slots = wanted_slots_;
  snapshot.slot_bytes = slab_->stride_bytes();
  for (const Slot& slot : slots_) {
    switch (slot.state) {
      case Slot::State::kFree:
        ++snapshot.slots.free;
        break;
      case Slot::State::kLoading:
        ++snapshot.slots.loading;
        break;
      case Slot::State::kReady:
        ++snapshot.slots.ready;
        snapshot.resident_bytes += RecordBytes(slot.encoding);
        snapshot.resident.push_back(ExpertId::FromFlat(slot.expert, num_experts_));
        break;
    }
  }
  std::sort(snapshot.resident.begin(), snapshot.resident.end());
  snapshot.evictions = evictions_;
  snapshot.layer_lookups = layer_lookups_;
  for (const auto& layer : layer_lookups_) {
    for (size_t i = 0; i < layer.size(); ++i) snapshot.lookups[i] += layer[i];
  }
  snapshot.hinted = hinted_;
  snapshot.demanded_bytes = demanded_bytes_;
  snapshot.stall_seconds = ToSeconds(stall_);
  return snapshot;
}

absl::Status ExpertCache::Slots::Validate() const {
  MutexLock lock(mutex_);
  const auto broken = [](const auto&... what) {
    return absl::InternalError(absl::StrCat("expert cache: ", what...));
  };
  uint64_t unused_hint_bytes = 0;
  uint32_t hinted_loads = 0;
  std::vector<uint32_t> slots_with(slot_of_.size());
  for (uint32_t i = 0; i < slots_.size(); ++i) {
    const Slot& slot = slots_[i];
    if (slot.state == Slot::State::kFree) {
      if (slot.expert != kNone || slot.load != nullptr || slot.is_unused_hint) {
        return broken("free slot ", i, " holds expert ", slot.expert);
      }
      continue;
    }
    if (slot.expert >= slot_of_.size() || slot_of_[slot.expert] != i) {
      return broken("slot ", i, " holds expert ", slot.expert, ", which is not found there");
    }
    if (++slots_with[slot.expert] > 1) return broken("expert ", slot.expert, " is in two slots");
    if ((slot.load != nullptr) != (slot.state == Slot::State::kLoading)) {
      return broken("slot ", i, " has a load and is not loading, or the other way round");
    }
    if (slot.is_unused_hint) unused_hint_bytes += RecordBytes(slot.encoding);
    if (slot.load != nullptr && slot.load->is_hinted) ++hinted_loads;
  }
  for (uint32_t expert = 0; expert < slot_of_.size(); ++expert) {
    if (slot_of_[expert] != kNone && slots_with[expert] != 1) {
      return broken("expert ", expert, " is said to be in slot ", slot_of_[expert]);
    }
  }
  if (hinted_.pending != unused_hint_bytes) {
    return broken(hinted_.pending, " bytes are pending, ", unused_hint_bytes, " in slots");
  }
  if (hinted_loads_ != hinted_loads) {
    return broken(hinted_loads_, " hinted loads are counted, ", hinted_loads, " are under way");
  }
  return absl::OkStatus();
}

void ExpertCache::Slots::VisitStats(StatsVisitor& visitor) const {
  const Snapshot snapshot = Read();
  const auto number = [](auto value) { return static_cast<double>(value); };
  const auto lookups = [&](absl::string_view name, absl::string_view help, Lookup kind) {
    visitor.OnCounter(name, help, {}, number(snapshot.lookups[static_cast<size_t>(kind)]));
  };
  lookups("expert_cache_hits_total",
          "Look-ups, one for each step, layer and expert, that found the expert ready.",
          Lookup::kHit);
  lookups("expert_cache_late_hits_total",
          "Look-ups that found the expert on its way.",
          Lookup::kLateHit);
  lookups("expert_cache_misses_total", "Look-ups that found no expert.", Lookup::kMiss);
  visitor.OnCounter("expert_cache_evictions_total",
                    "Experts that gave up their slot.",
                    {},
                    number(snapshot.evictions));
  const std::pair<const char*, uint32_t> states[] = {{"free", snapshot.slots.free},
                                                     {"loading", snapshot.slots.loading},
                                                     {"ready", snapshot.slots.ready}};
  for (const auto& [state, count] : states) {
    visitor.OnGauge("expert_cache_slots", "Slots, by what is in them.", {{"state", state}}, count);
  }
  visitor.OnGauge("expert_cache_bytes",
                  "Bytes of device memory for experts: of all slots, and of those in use.",
                  {{"kind", "capacity"}},
                  number(snapshot.num_slots * snapshot.slot_bytes));
  visitor.OnGauge("expert_cache_bytes",
                  "Bytes of device memory for experts: of all slots, and of those in use.",
                  {{"kind", "resident"}},
                  number(snapshot.resident_bytes));
  visitor.OnCounter("expert_stall_seconds_total",
                    "Time that steps waited for experts.",
                    {},
                    snapshot.stall_seconds);
  const std::pair<const char*, uint64_t> results[] = {{"useful", snapshot.hinted.useful},
                                                      {"late", snapshot.hinted.late},
                                                      {"wasted", snapshot.hinted.wasted},
                                                      {"cancelled", snapshot.hinted.cancelled}};
  for (const auto& [result, bytes] : results) {
    visitor.OnCounter("expert_prefetch_bytes_total",
                      "Bytes of prefetched experts: in time, under way when needed, never used, or "
                      "given up before they were copied.",
                      {{"result", result}},
                      number(bytes));
  }
  visitor.OnGauge("expert_prefetch_pending_bytes",
                  "Bytes of prefetched experts whose use is not decided.",
                  {},
                  number(snapshot.hinted.pending));
  VisitLoads(visitor);
}

void ExpertCache::Slots::VisitLoads(StatsVisitor& visitor) const {
  constexpr const char* kSources[] = {"host", "disk"};
  constexpr const char* kReasons[] = {"demand", "prefetch"};
  std::array<std::array<uint64_t, 2>, 2> loaded_bytes;
  double rate;
  double busy_seconds;
  double seconds;
  {
    MutexLock lock(mutex_);
    loaded_bytes = loaded_bytes_;
    // Not the mean of the rates: of two copies whose ends were noted together, one seems to have
    // taken no time.
    rate = load_seconds_ > 0 ? load_bytes_ / load_seconds_ : 0;
    busy_seconds = link_seconds_;
    seconds = std::max(1e-9, ToSeconds(clock_.Now() - opened_));
  }
  for (size_t source = 0; source < 2; ++source) {
    for (size_t reason = 0; reason < 2; ++reason) {
      visitor.OnCounter("expert_loaded_bytes_total",
                        "Bytes of experts that were loaded, by where from and what for.",
                        {{"source", kSources[source]}, {"reason", kReasons[reason]}},
                        static_cast<double>(loaded_bytes[source][reason]));
    }
  }
  for (size_t source = 0; source < 2; ++source) {
    visitor.OnHistogram("expert_load_seconds",
                        "From asking for an expert to its being ready.",
                        {{"source", kSources[source]}},
                        load_histogram_[source].Read());
  }
  visitor.OnGauge("link_bandwidth_bytes_per_second",
                  "Measured on the latest copies of experts; 0 before the first.",
                  {},
                  rate);
  visitor.OnCounter("link_busy_seconds_total",
                    "Time that experts were being copied; its rate is the link's use.",
                    {},
                    busy_seconds);
  visitor.OnGauge("link_busy_ratio",
                  "Share of the time since the start that experts were being copied, 0 to 1.",
                  {},
                  busy_seconds / seconds);
}

}  // namespace pregate
