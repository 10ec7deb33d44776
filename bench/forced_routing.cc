#include "bench/forced_routing.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "bench/trace_json.h"
#include "core/base/status_macros.h"

namespace pregate {

std::vector<Flag> FlagsOf(ForcedRoutingFlags& flags) {
  return {TextFlag("routing-trace",
                   "FILE",
                   "forces recorded routing, ours or JSON: speed is real then, text is not",
                   flags.trace),
          NumberFlag("simulated-recall",
                     "speculate by the trace itself, degraded to this recall",
                     0,
                     1,
                     flags.recall),
          CountFlag("simulated-horizon",
                    "layers ahead that it sees, 1 or 2 (default 1)",
                    1,
                    2,
                    flags.horizon)};
}

absl::StatusOr<ForcedRouting> ReadForcedRouting(const ForcedRoutingFlags& flags) {
  ForcedRouting routing;
  const bool is_simulated = flags.recall != ForcedRoutingFlags::kNoRecall;
  if (flags.horizon > 0 && !is_simulated) {
    return absl::InvalidArgumentError("--simulated-horizon needs --simulated-recall");
  }
  if (flags.trace.empty()) {
    if (!is_simulated) return routing;
    return absl::InvalidArgumentError(
        "--simulated-recall needs --routing-trace: a simulated predictor has to know where tokens "
        "will go");
  }
  PREGATE_ASSIGN_OR_RETURN(RoutingTrace trace, ReadAnyRoutingTrace(flags.trace));
  routing.file = flags.trace;
  routing.trace = std::make_shared<const RoutingTrace>(std::move(trace));
  if (is_simulated) {
    routing.simulated = {.recall = flags.recall, .horizon = std::max(1U, flags.horizon)};
  }
  return routing;
}

absl::Status Force(const ForcedRouting& routing, TorchRunner& runner) {
  if (routing.trace == nullptr) return absl::OkStatus();
  const absl::Status status = runner.ForceRouting(routing.trace);
  if (status.ok()) return absl::OkStatus();
  return absl::Status(status.code(), absl::StrCat(routing.file, ": ", status.message()));
}

absl::Status UseSimulated(const ForcedRouting& routing, ExpertOffload& experts) {
  ExpertOffload::SpeculationChange change;
  change.mode = "none";
  change.lookahead = routing.simulated->horizon;
  // What it says is to be acted on: recall is that of the hints.
  change.aggressiveness = 1;
  change.confidence = 0;
  PREGATE_RETURN_IF_ERROR(experts.SetSpeculation(change));
  experts.UsePredictor(std::make_unique<OraclePredictor>(
      routing.trace, routing.simulated->recall, routing.simulated->horizon));
  return absl::OkStatus();
}

std::string CaptionOf(const ForcedRouting& routing) {
  if (routing.trace == nullptr) return "";
  return absl::StrFormat(
      "routing forced by %s (of %s, %d sequences): speeds are real, text is not\n",
      routing.file,
      routing.trace->model,
      routing.trace->sequences.size());
}

nlohmann::ordered_json ToJson(const ForcedRouting& routing) {
  if (routing.trace == nullptr) return nullptr;
  nlohmann::ordered_json json = {{"file", routing.file},
                                 {"model", routing.trace->model},
                                 {"sequences", routing.trace->sequences.size()},
                                 {"simulated_predictor", nullptr}};
  if (routing.simulated.has_value()) {
    json["simulated_predictor"] = {{"recall", routing.simulated->recall},
                                   {"horizon", routing.simulated->horizon}};
  }
  return json;
}

}  // namespace pregate
