#include "core/expert/expert_cache.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/check.h"
#include "core/base/status_macros.h"
#include "core/expert/expert_slots.h"

namespace pregate {
namespace {

absl::Status CheckSources(absl::Span<RecordSource* const> sources) {
  PREGATE_CHECK(!sources.empty());
  const ExpertPackHeader& first = sources.front()->header();
  for (const RecordSource* source : sources) {
    const ExpertPackHeader& header = source->header();
    if (header.num_layers == first.num_layers && header.num_experts == first.num_experts) continue;
    return absl::InvalidArgumentError(absl::StrCat("one encoding has ",
                                                   first.num_layers,
                                                   " layers of ",
                                                   first.num_experts,
                                                   " experts, another ",
                                                   header.num_layers,
                                                   " of ",
                                                   header.num_experts));
  }
  return absl::OkStatus();
}

}  // namespace

ExpertLease::ExpertLease(std::unique_ptr<State> state) : state_(std::move(state)) {}
ExpertLease::ExpertLease(ExpertLease&& other) noexcept = default;

ExpertLease& ExpertLease::operator=(ExpertLease&& other) noexcept {
  // The other's destructor ends what this held.
  std::swap(state_, other.state_);
  return *this;
}

ExpertLease::~ExpertLease() {
  if (state_ == nullptr) return;
  ExpertCache::Slots* const slots = state_->slots;
  slots->EndLease(std::move(state_));
}

std::optional<ExpertLease::Expert> ExpertLease::Next() {
  const absl::Span<const Expert> next = NextGroup(1);
  return next.empty() ? std::nullopt : std::make_optional(next.front());
}
absl::Span<const ExpertLease::Expert> ExpertLease::NextGroup(size_t most) {
  return state_->slots->NextGroup(*state_, most);
}
absl::Span<const Lookup> ExpertLease::lookups() const { return state_->lookups; }
uint64_t ExpertLease::demanded_bytes() const { return state_->demanded_bytes; }
Duration ExpertLease::stall() const { return state_->stall; }

absl::StatusOr<std::unique_ptr<ExpertCache>> ExpertCache::Create(std::vector<RecordSource*> sources,
                                                                 Backend& backend,
                                                                 const Clock& clock,
                                                                 const Options& options) {
  PREGATE_RETURN_IF_ERROR(CheckSources(sources));
  auto slots = std::make_unique<Slots>(std::move(sources), clock, options);
  PREGATE_ASSIGN_OR_RETURN(std::unique_ptr<EvictionPolicy> policy,
                           MakeEvictionPolicy(options.eviction, slots->shape()));
  PREGATE_RETURN_IF_ERROR(slots->Open(backend, std::move(policy)));
  return std::unique_ptr<ExpertCache>(new ExpertCache(std::move(slots)));
}

ExpertCache::ExpertCache(std::unique_ptr<Slots> slots) : slots_(std::move(slots)) {}
ExpertCache::~ExpertCache() = default;

absl::StatusOr<ExpertLease> ExpertCache::Acquire(absl::Span<const ExpertId> ids, Stream& consumer) {
  PREGATE_ASSIGN_OR_RETURN(std::unique_ptr<ExpertLease::State> lease,
                           slots_->Acquire(ids, consumer));
  return ExpertLease(std::move(lease));
}

uint32_t ExpertCache::Hint(absl::Span<const ExpertHint> hints, uint32_t max_loads) {
  return slots_->Hint(hints, max_loads);
}
void ExpertCache::CancelHints() { slots_->Hint({}, 0); }

absl::Status ExpertCache::SetNumSlots(uint32_t num_slots) { return slots_->SetNumSlots(num_slots); }

absl::Status ExpertCache::SetEviction(absl::string_view name) {
  PREGATE_ASSIGN_OR_RETURN(std::unique_ptr<EvictionPolicy> policy,
                           MakeEvictionPolicy(name, slots_->shape()));
  SetEviction(std::move(policy));
  return absl::OkStatus();
}

void ExpertCache::SetEviction(std::unique_ptr<EvictionPolicy> policy) {
  slots_->SetPolicy(std::move(policy));
}

void ExpertCache::SetMaxHintedLoads(uint32_t max_hinted_loads) {
  slots_->SetMaxHintedLoads(max_hinted_loads);
}
void ExpertCache::SetDropAfterUse(bool drop_after_use) { slots_->SetDropAfterUse(drop_after_use); }
void ExpertCache::SetEncoding(uint32_t source) { slots_->SetEncoding(source); }
void ExpertCache::SetUnified(bool is_unified) { slots_->SetUnified(is_unified); }
void ExpertCache::Reset() { slots_->Reset(); }
double ExpertCache::load_seconds() const { return slots_->load_seconds(); }

ExpertCache::Pace ExpertCache::ReadPace() const { return slots_->ReadPace(); }
ExpertCache::Snapshot ExpertCache::Read() const { return slots_->Read(); }
absl::Status ExpertCache::Validate() const { return slots_->Validate(); }
void ExpertCache::VisitStats(StatsVisitor& visitor) const { slots_->VisitStats(visitor); }

}  // namespace pregate
