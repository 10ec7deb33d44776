#include "server/expert_admin.h"

#include <utility>

#include "absl/strings/strip.h"
#include "core/base/status_macros.h"
#include "server/status.h"

namespace pregate {
namespace {

v1::ExpertLookups ToWire(const std::array<uint64_t, 3>& lookups) {
  v1::ExpertLookups wire;
  wire.set_hits(lookups[static_cast<size_t>(Lookup::kHit)]);
  wire.set_late_hits(lookups[static_cast<size_t>(Lookup::kLateHit)]);
  wire.set_misses(lookups[static_cast<size_t>(Lookup::kMiss)]);
  return wire;
}

v1::PrefetchBytes ToWire(const ExpertCache::HintedBytes& bytes) {
  v1::PrefetchBytes wire;
  wire.set_useful(bytes.useful);
  wire.set_late(bytes.late);
  wire.set_wasted(bytes.wasted);
  wire.set_cancelled(bytes.cancelled);
  wire.set_pending(bytes.pending);
  return wire;
}

void AddLayers(const ExpertCache::Snapshot& cache,
               bool with_resident,
               v1::GetExpertCacheResponse& wire) {
  for (uint32_t layer = 0; layer < cache.layer_lookups.size(); ++layer) {
    v1::ExpertCacheLayer& added = *wire.add_layers();
    added.set_layer(layer);
    *added.mutable_lookups() = ToWire(cache.layer_lookups[layer]);
  }
  if (!with_resident) return;
  for (const ExpertId& id : cache.resident) {
    wire.mutable_layers(static_cast<int>(id.layer))->add_resident_experts(id.expert);
  }
}

// How messages of the core name what is wrong, and the request's field that said it.
constexpr std::pair<absl::string_view, absl::string_view> kFields[] = {
    {"expert_capacity: ", "capacity"},
    {"memory_strategy: ", "memory_strategy"},
    {"speculation: ", "mode"},
    {"speculation_lookahead: ", "lookahead"},
    {"speculation_aggressiveness: ", "aggressiveness"},
    {"speculation_confidence: ", "confidence"}};

absl::Status Refused(absl::Status status) {
  if (absl::IsInvalidArgument(status)) {
    absl::string_view message = status.message();
    for (const auto& [option, field] : kFields) {
      if (!absl::ConsumePrefix(&message, option)) continue;
      return InvalidFields({{.field = std::string(field), .description = std::string(message)}});
    }
  }
  if (absl::IsResourceExhausted(status)) return WithReason(std::move(status), "DOES_NOT_FIT");
  if (absl::IsFailedPrecondition(status)) return WithReason(std::move(status), "MODEL_LACKS_IT");
  return status;
}

}  // namespace

v1::Speculation ToWire(const ExpertOffload::Speculation& speculation) {
  v1::Speculation wire;
  wire.set_mode(speculation.mode);
  wire.set_lookahead(speculation.lookahead);
  wire.set_aggressiveness(speculation.aggressiveness);
  wire.set_confidence(speculation.confidence);
  wire.set_predicted(speculation.predicted);
  wire.set_correct(speculation.correct);
  return wire;
}

absl::StatusOr<v1::GetExpertCacheResponse> ReadExpertCache(
    ExpertOffload& experts, const v1::GetExpertCacheRequest& request) {
  const ExpertOffload::State state = experts.Read();
  const ExpertCache::Snapshot& cache = state.cache;
  v1::GetExpertCacheResponse wire;
  wire.set_expert_codec(state.codec);
  wire.set_load_codec(state.load_codec);
  wire.set_memory_strategy(state.memory_strategy);
  wire.set_eviction(state.eviction);
  wire.set_num_layers(state.model.num_layers);
  wire.set_num_experts(state.model.num_experts);
  wire.set_unified_memory(state.is_unified);
  wire.set_slots(state.is_unified ? 0 : cache.num_slots);
  wire.set_slots_free(cache.slots.free);
  wire.set_slots_loading(cache.slots.loading);
  wire.set_slots_ready(cache.slots.ready);
  wire.set_slot_bytes(cache.slot_bytes);
  wire.set_resident_bytes(cache.resident_bytes);
  *wire.mutable_lookups() = ToWire(cache.lookups);
  wire.set_evictions(cache.evictions);
  wire.set_demanded_bytes(cache.demanded_bytes);
  wire.set_stall_seconds(cache.stall_seconds);
  *wire.mutable_prefetch_bytes() = ToWire(cache.hinted);
  *wire.mutable_speculation() = ToWire(state.speculation);
  if (request.include_layers() || request.include_resident()) {
    AddLayers(cache, request.include_resident(), wire);
  }
  return wire;
}

absl::StatusOr<v1::ResetExpertCacheResponse> ResetExperts(ExpertOffload& experts,
                                                          const v1::ResetExpertCacheRequest&) {
  experts.Reset();
  return v1::ResetExpertCacheResponse();
}

absl::StatusOr<v1::SetExpertCacheCapacityResponse> SetCapacity(
    ExpertOffload& experts, const v1::SetExpertCacheCapacityRequest& request) {
  PREGATE_RETURN_IF_ERROR(Refused(experts.SetCapacity(request.capacity())));
  v1::SetExpertCacheCapacityResponse wire;
  wire.set_slots(experts.Read().cache.num_slots);
  return wire;
}

absl::StatusOr<v1::SetSpeculationResponse> ChangeSpeculation(
    ExpertOffload& experts, const v1::SetSpeculationRequest& request) {
  ExpertOffload::SpeculationChange change;
  if (request.has_mode()) change.mode = request.mode();
  if (request.has_lookahead()) change.lookahead = request.lookahead();
  if (request.has_aggressiveness()) change.aggressiveness = request.aggressiveness();
  if (request.has_confidence()) change.confidence = request.confidence();
  PREGATE_RETURN_IF_ERROR(Refused(experts.SetSpeculation(change)));
  v1::SetSpeculationResponse wire;
  *wire.mutable_speculation() = ToWire(experts.Read().speculation);
  return wire;
}

absl::StatusOr<v1::SetMemoryStrategyResponse> ChangeMemoryStrategy(
    ExpertOffload& experts, const v1::SetMemoryStrategyRequest& request) {
  PREGATE_RETURN_IF_ERROR(Refused(experts.SetMemoryStrategy(request.memory_strategy())));
  const ExpertOffload::State state = experts.Read();
  v1::SetMemoryStrategyResponse wire;
  wire.set_memory_strategy(state.memory_strategy);
  wire.set_slots(state.is_unified ? 0 : state.cache.num_slots);
  return wire;
}

}  // namespace pregate
