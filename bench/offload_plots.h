// Pictures of a comparison.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "bench/forced_routing.h"
#include "bench/offload_comparison.h"
#include "bench/plot.h"

namespace pregate {

// What a row is called in tables and pictures: a mode, or "= " and a control.
std::string NameOf(const OffloadRow& row, const ForcedRouting& routing);

// Tokens per second of every row, with their ranges.
BarChart PlotRates(const OffloadComparison& comparison, const ForcedRouting& routing);
// What became of the bytes that each row prefetched, for a token; rows that prefetched none are
// left out, and so are bytes whose end was open when the last turn ended.
BarChart PlotPrefetches(const OffloadComparison& comparison, const ForcedRouting& routing);

// Into `folder`: tokens_per_second.svg and, if any row prefetched, prefetch_bytes.svg. The errors
// of WritePlot.
absl::Status WriteComparisonPlots(const std::string& folder,
                                  const OffloadComparison& comparison,
                                  const ForcedRouting& routing);

}  // namespace pregate
