// What `pregate-bench replay` plays: a trace through eviction policies and predictors, at every
// capacity and number of streams that are asked for.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "bench/control_predictors.h"
#include "core/expert/predictor_evaluation.h"
#include "core/expert/replay.h"
#include "core/expert/routing_trace.h"

namespace pregate {

// A mode of --speculation, or a simulated predictor.
struct ReplayPredictor {
  std::string mode;  // of HistoryPredictorNames(); "" for a simulated one
  std::optional<SimulatedPredictor> simulated;

  uint32_t lookahead() const { return simulated.has_value() ? simulated->horizon : 1; }
  std::string name() const { return simulated.has_value() ? NameOf(*simulated) : mode; }
};

struct ReplayPlan {
  std::vector<std::string> policies;    // of ReplayPolicyNames
  std::vector<std::string> capacities;  // as CheckReplayCapacity has them
  std::vector<uint32_t> streams;
  std::vector<ReplayPredictor> predictors;  // beside none
  uint32_t loads_per_layer = 8;             // that are prefetched in the time of a layer at most
  uint32_t num_threads = 1;
};

struct ReplayCase {
  std::string policy;
  std::string predictor;  // its name; "none": no prefetch
  std::string capacity;
  uint32_t num_slots = 0;
  uint32_t num_streams = 0;
  ReplayResult result;
  double seconds = 0;  // of a core
};

// How well a predictor foresees one layer, whatever is resident.
struct RecallCase {
  ReplayPredictor predictor;
  uint32_t num_streams = 0;
  uint32_t distance = 0;  // layers ahead
  PredictorEvaluation evaluation;
};

struct ReplayReport {
  std::vector<ReplayCase> cases;    // by streams, capacity, policy, predictor (none first)
  std::vector<RecallCase> recalls;  // by streams, predictor, distance

  // Over the replays without prefetch of policies that a server can run; 0 when there is none.
  double lookups_per_second_per_core() const;
};

inline constexpr char kBelady[] = "belady";
inline constexpr char kNoPredictor[] = "none";

// A server's eviction policies, and "belady", the optimum that knows what comes.
std::vector<std::string> ReplayPolicyNames();
// The modes that need nothing but a trace's history.
std::vector<std::string> HistoryPredictorNames();
// INVALID_ARGUMENT: is not a share of all experts ("25%") or a number of them ("96").
absl::Status CheckReplayCapacity(absl::string_view capacity);

// How often `on_done` of RunReplay will be called.
uint64_t NumReplays(const ReplayPlan& plan);

// Plays them, `num_threads` at a time; `on_done` is called after each, by one thread at a time.
// INVALID_ARGUMENT, FAILED_PRECONDITION: names what the plan holds and a trace cannot be played
// through.
absl::StatusOr<ReplayReport> RunReplay(const std::shared_ptr<const RoutingTrace>& trace,
                                       const ReplayPlan& plan,
                                       const std::function<void()>& on_done);

}  // namespace pregate
