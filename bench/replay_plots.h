// Pictures of a replay.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "bench/plot.h"
#include "bench/replay_cases.h"
#include "core/expert/routing_trace.h"

namespace pregate {

// Hit rate against capacity without prefetch, a line for each policy; the optimum dashed.
LineChart PlotPolicies(const RoutingTrace& trace, const ReplayReport& report, uint32_t num_streams);
// Hit rate against capacity with `policy`, a line for each predictor and one for none; simulated
// ones dashed.
LineChart PlotPredictors(const RoutingTrace& trace,
                         const ReplayReport& report,
                         uint32_t num_streams,
                         const std::string& policy);
// What became of the experts that were prefetched, by predictor and capacity, with `policy`: as
// shares of what would have been loaded without prefetch. An expert's bytes are all the same.
BarChart PlotPrefetches(const RoutingTrace& trace,
                        const ReplayReport& report,
                        uint32_t num_streams,
                        const std::string& policy);
// How often each expert of each layer was chosen, as a share of the tokens.
HeatMap PlotRouting(const RoutingTrace& trace);

// All of them into `folder`: routing.svg; for N streams policies_N.svg and, where there are
// predictors, predictors_N.svg and prefetch_N.svg with the first policy. The errors of WritePlot.
absl::Status WriteReplayPlots(const std::string& folder,
                              const RoutingTrace& trace,
                              const ReplayPlan& plan,
                              const ReplayReport& report);

}  // namespace pregate
