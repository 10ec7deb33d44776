#include "bench/replay_plots.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"

namespace pregate {
namespace {

double Share(uint64_t part, uint64_t whole) {
  return whole == 0 ? 0 : static_cast<double>(part) / static_cast<double>(whole);
}

// What was replayed, as a title ends.
std::string TraceText(const RoutingTrace& trace, uint32_t num_streams) {
  return absl::StrCat(trace.model,
                      trace.model.empty() ? "" : ", ",
                      num_streams == 1 ? "one sequence at a time"
                                       : absl::StrCat(num_streams, " sequences side by side"));
}

LineChart HitRateChart(std::string title) {
  LineChart chart;
  chart.title = std::move(title);
  chart.x.label = "share of all experts that is resident (%)";
  chart.x.is_share = true;
  chart.y.label = "look-ups that hit (%)";
  chart.y.is_share = true;
  chart.y.most = 1;
  return chart;
}

// Into the line of that name, which is begun when it is not there yet.
void AddHitRate(const RoutingTrace& trace,
                const ReplayCase& one,
                const std::string& name,
                LineChart& chart) {
  auto series = std::find_if(chart.series.begin(), chart.series.end(), [&](const auto& known) {
    return known.name == name;
  });
  if (series == chart.series.end()) {
    series = chart.series.emplace(chart.series.end());
    series->name = name;
  }
  series->points.emplace_back(Share(one.num_slots, uint64_t{trace.num_layers} * trace.num_experts),
                              one.result.hit_rate());
}

void SortPoints(LineChart& chart) {
  for (LineChart::Series& series : chart.series) {
    std::sort(series.points.begin(), series.points.end());
  }
}

}  // namespace

LineChart PlotPolicies(const RoutingTrace& trace,
                       const ReplayReport& report,
                       uint32_t num_streams) {
  LineChart chart =
      HitRateChart(absl::StrCat("Hit rate by eviction policy: ", TraceText(trace, num_streams)));
  for (const ReplayCase& one : report.cases) {
    if (one.num_streams != num_streams || one.predictor != kNoPredictor) continue;
    AddHitRate(trace, one, one.policy, chart);
  }
  for (LineChart::Series& series : chart.series) series.is_bound = series.name == kBelady;
  SortPoints(chart);
  return chart;
}

LineChart PlotPredictors(const RoutingTrace& trace,
                         const ReplayReport& report,
                         uint32_t num_streams,
                         const std::string& policy) {
  std::set<std::string> simulated;
  for (const RecallCase& one : report.recalls) {
    if (one.predictor.simulated.has_value()) simulated.insert(one.predictor.name());
  }
  LineChart chart = HitRateChart(absl::StrCat(
      "Hit rate by predictor, eviction ", policy, ": ", TraceText(trace, num_streams)));
  for (const ReplayCase& one : report.cases) {
    if (one.num_streams != num_streams || one.policy != policy) continue;
    AddHitRate(trace, one, one.predictor, chart);
  }
  for (LineChart::Series& series : chart.series) {
    series.is_bound = simulated.count(series.name) > 0;
  }
  SortPoints(chart);
  return chart;
}

BarChart PlotPrefetches(const RoutingTrace& trace,
                        const ReplayReport& report,
                        uint32_t num_streams,
                        const std::string& policy) {
  BarChart chart;
  chart.title =
      absl::StrCat("Prefetched bytes, eviction ", policy, ": ", TraceText(trace, num_streams));
  chart.value.label = "bytes, of those loaded without prefetch (%)";
  chart.value.is_share = true;
  chart.is_stacked = true;
  chart.series.resize(2);
  chart.series[0].name = "useful";
  chart.series[1].name = "wasted";
  uint64_t misses = 0;  // of the case without prefetch, which comes before those with it
  for (const ReplayCase& one : report.cases) {
    if (one.num_streams != num_streams || one.policy != policy) continue;
    if (one.predictor == kNoPredictor) {
      misses = one.result.misses();
      continue;
    }
    chart.categories.push_back(absl::StrCat(one.predictor, ", ", one.capacity));
    chart.series[0].values.push_back(Share(one.result.useful, misses));
    chart.series[1].values.push_back(Share(one.result.wasted, misses));
  }
  return chart;
}

HeatMap PlotRouting(const RoutingTrace& trace) {
  HeatMap map;
  map.title = absl::StrCat("Experts by layer", trace.model.empty() ? "" : ": ", trace.model);
  map.row_label = "layer";
  map.column_label = "expert";
  map.value_label = "tokens that went there (%)";
  map.is_share = true;
  map.num_columns = trace.num_experts;
  map.values.resize(size_t{trace.num_layers} * trace.num_experts);
  uint64_t num_tokens = 0;
  for (const RoutingTrace::Sequence& sequence : trace.sequences) {
    num_tokens += trace.num_tokens(sequence);
    for (size_t i = 0; i < sequence.expert_ids.size(); ++i) {
      const size_t layer = i / trace.experts_per_token % trace.num_layers;
      map.values[layer * trace.num_experts + sequence.expert_ids[i]] += 1;
    }
  }
  for (double& value : map.values) value /= static_cast<double>(std::max<uint64_t>(num_tokens, 1));
  return map;
}

absl::Status WriteReplayPlots(const std::string& folder,
                              const RoutingTrace& trace,
                              const ReplayPlan& plan,
                              const ReplayReport& report) {
  PREGATE_RETURN_IF_ERROR(WritePlot(folder, "routing", PlotRouting(trace)));
  const std::string& policy = plan.policies.front();
  for (const uint32_t num_streams : plan.streams) {
    PREGATE_RETURN_IF_ERROR(WritePlot(
        folder, absl::StrCat("policies_", num_streams), PlotPolicies(trace, report, num_streams)));
    if (plan.predictors.empty()) continue;
    PREGATE_RETURN_IF_ERROR(WritePlot(folder,
                                      absl::StrCat("predictors_", num_streams),
                                      PlotPredictors(trace, report, num_streams, policy)));
    PREGATE_RETURN_IF_ERROR(WritePlot(folder,
                                      absl::StrCat("prefetch_", num_streams),
                                      PlotPrefetches(trace, report, num_streams, policy)));
  }
  return absl::OkStatus();
}

}  // namespace pregate
