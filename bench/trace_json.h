// Routing traces as others publish them.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "core/expert/routing_trace.h"

namespace pregate {

// Reads a trace in our format, or as JSON, plain or compressed with gzip: {"model", "num_layers",
// "num_experts", "top_k", "sequences": [{"id", "experts": [token][layer][expert ids, best
// first]}]}. INVALID_ARGUMENT names the file and what is wrong in it.
absl::StatusOr<RoutingTrace> ReadAnyRoutingTrace(const std::string& path);

}  // namespace pregate
