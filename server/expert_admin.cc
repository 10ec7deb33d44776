#include "server/expert_admin.h"

#include <utility>

#include "absl/strings/strip.h"
#include "core/base/status_macros.h"
#include "server/profile_config.h"
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

absl::Status NoExpertCache() {
  return WithReason(absl::FailedPreconditionError("the model's experts are not kept in a cache"),
                    "NO_EXPERT_CACHE");
}

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

v1::ProfileDeviceResponse ToWire(const Engine::Profile& profile) {
  const DeviceProfile& device = profile.device;
  v1::ProfileDeviceResponse wire;
  wire.set_cpu(device.host.cpu);
  wire.set_num_cpus(device.host.num_cpus);
  wire.set_host_bytes(device.host.memory_bytes);
  wire.set_device(device.device);
  wire.set_device_bytes(device.device_bytes);
  wire.set_device_free_bytes(device.free_bytes);
  wire.set_host_bytes_per_second(device.host_bytes_per_second);
  wire.set_disk_bytes_per_second(device.disk_bytes_per_second);
  for (const DeviceProfile::LinkPoint& point : device.link) {
    v1::LinkBandwidth& added = *wire.add_link();
    added.set_bytes(point.bytes);
    added.set_bytes_per_second(point.bytes_per_second);
  }
  wire.set_expert_codec(device.codec);
  wire.set_expert_bytes(device.record_bytes);
  wire.set_expert_transfer_seconds(device.transfer_seconds);
  for (const DeviceProfile::ComputePoint& point : device.compute) {
    v1::ExpertCompute& added = *wire.add_expert_compute();
    added.set_tokens(point.rows);
    added.set_seconds(point.seconds);
  }
  wire.set_dense_seconds(device.dense_seconds);
  for (const Recommendation& recommendation : profile.recommendations) {
    v1::RecommendedSetting& added = *wire.add_recommendations();
    added.set_field(recommendation.flag);
    added.set_value(recommendation.value);
    added.set_reason(recommendation.reason);
    added.set_preset(recommendation.preset);
  }
  wire.set_config(FormatProfileConfig(profile, {}));
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
