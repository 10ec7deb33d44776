#include "bench/offload_plots.h"

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"

namespace pregate {
namespace {

// What was compared, as a title ends.
std::string ComparisonText(const OffloadComparison& comparison, const ForcedRouting& routing) {
  std::string text = absl::StrCat(comparison.model, ", codec ", comparison.codec);
  if (!comparison.rows.empty()) {
    absl::StrAppend(&text, ", batch ", comparison.rows.front().batch_size);
  }
  if (routing.trace != nullptr) absl::StrAppend(&text, ", forced routing");
  return absl::StrCat(text, " (= marks controls)");
}

}  // namespace

std::string NameOf(const OffloadRow& row, const ForcedRouting& routing) {
  if (row.control.empty()) return row.speculation;
  if (row.control == "simulated") return absl::StrCat("= ", NameOf(*routing.simulated));
  return absl::StrCat("= ", row.control);
}

BarChart PlotRates(const OffloadComparison& comparison, const ForcedRouting& routing) {
  BarChart chart;
  chart.title = absl::StrCat("Decoding: ", ComparisonText(comparison, routing));
  chart.value.label = "tokens/s";
  BarChart::Series& rates = chart.series.emplace_back();
  rates.name = "median, least to most";
  for (const OffloadRow& row : comparison.rows) {
    chart.categories.push_back(NameOf(row, routing));
    rates.values.push_back(row.tokens_per_second.median);
    rates.ranges.emplace_back(row.tokens_per_second.min, row.tokens_per_second.max);
  }
  return chart;
}

BarChart PlotPrefetches(const OffloadComparison& comparison, const ForcedRouting& routing) {
  BarChart chart;
  chart.title = absl::StrCat("Prefetched bytes: ", ComparisonText(comparison, routing));
  chart.value.label = "KiB/token";
  chart.is_stacked = true;
  chart.series.resize(4);
  for (size_t i = 0; i < chart.series.size(); ++i) {
    constexpr const char* kNames[] = {"useful", "late", "wasted", "cancelled"};
    chart.series[i].name = kNames[i];
  }
  for (const OffloadRow& row : comparison.rows) {
    const ExpertCache::HintedBytes& bytes = row.experts.hinted;
    const uint64_t ends[] = {bytes.useful, bytes.late, bytes.wasted, bytes.cancelled};
    if (bytes.useful + bytes.late + bytes.wasted + bytes.cancelled == 0) continue;
    chart.categories.push_back(NameOf(row, routing));
    for (size_t i = 0; i < chart.series.size(); ++i) {
      chart.series[i].values.push_back(static_cast<double>(ends[i]) / 1024 /
                                       static_cast<double>(row.num_tokens));
    }
  }
  return chart;
}

absl::Status WriteComparisonPlots(const std::string& folder,
                                  const OffloadComparison& comparison,
                                  const ForcedRouting& routing) {
  PREGATE_RETURN_IF_ERROR(WritePlot(folder, "tokens_per_second", PlotRates(comparison, routing)));
  const BarChart prefetches = PlotPrefetches(comparison, routing);
  if (prefetches.categories.empty()) return absl::OkStatus();
  return WritePlot(folder, "prefetch_bytes", prefetches);
}

}  // namespace pregate
