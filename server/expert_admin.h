// What the admin methods on experts do, without gRPC's part in it.
#pragma once

#include "absl/status/statusor.h"
#include "core/pregate.h"
#include "pregate/v1/admin.pb.h"

namespace pregate {

// FAILED_PRECONDITION, for a model without.
absl::Status NoExpertCache();

v1::Speculation ToWire(const ExpertOffload::Speculation& speculation);

v1::ProfileDeviceResponse ToWire(const Engine::Profile& profile);

// The errors are those of the ExpertOffload's methods, with the reason and the field at fault.
absl::StatusOr<v1::GetExpertCacheResponse> ReadExpertCache(
    ExpertOffload& experts, const v1::GetExpertCacheRequest& request);
absl::StatusOr<v1::ResetExpertCacheResponse> ResetExperts(
    ExpertOffload& experts, const v1::ResetExpertCacheRequest& request);
absl::StatusOr<v1::SetExpertCacheCapacityResponse> SetCapacity(
    ExpertOffload& experts, const v1::SetExpertCacheCapacityRequest& request);
absl::StatusOr<v1::SetSpeculationResponse> ChangeSpeculation(
    ExpertOffload& experts, const v1::SetSpeculationRequest& request);
absl::StatusOr<v1::SetMemoryStrategyResponse> ChangeMemoryStrategy(
    ExpertOffload& experts, const v1::SetMemoryStrategyRequest& request);

}  // namespace pregate
