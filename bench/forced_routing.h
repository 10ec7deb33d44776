// Routing from a file in place of the model's own choices: --routing-trace and what goes with it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bench/control_predictors.h"
#include "core/base/options.h"
#include "core/expert/expert_offload.h"
#include "core/expert/routing_trace.h"
#include "core/model/torch_runner.h"
#include "nlohmann/json.hpp"

namespace pregate {

struct ForcedRouting {
  std::string file;
  std::shared_ptr<const RoutingTrace> trace;  // null: the model's own routing
  std::optional<SimulatedPredictor> simulated;
};

// The values of the flags.
struct ForcedRoutingFlags {
  std::string trace;
  double recall = kNoRecall;
  uint32_t horizon = 0;  // 0 = not given

  static constexpr double kNoRecall = -1;
};

// --routing-trace, --simulated-recall and --simulated-horizon.
std::vector<Flag> FlagsOf(ForcedRoutingFlags& flags);

// Reads the trace. INVALID_ARGUMENT: a simulated predictor without one, as it has to know where
// tokens go, or a horizon without a recall; else the errors of ReadAnyRoutingTrace.
absl::StatusOr<ForcedRouting> ReadForcedRouting(const ForcedRoutingFlags& flags);

// Forces the trace, if there is one, upon `runner`. INVALID_ARGUMENT names the file and both shapes
// when it is of another.
absl::Status Force(const ForcedRouting& routing, TorchRunner& runner);

// Makes `experts` hint what the simulated predictor, which there is, says.
absl::Status UseSimulated(const ForcedRouting& routing, ExpertOffload& experts);

// What has to stand above every table of forced routing, a line; "" when the routing is the
// model's.
std::string CaptionOf(const ForcedRouting& routing);
// The same for JSON: null when the routing is the model's.
nlohmann::ordered_json ToJson(const ForcedRouting& routing);

}  // namespace pregate
