#include "bench/comparison.h"

#include <algorithm>

#include "core/base/check.h"
#include "core/base/status_macros.h"

namespace pregate {

Spread SpreadOf(std::vector<double> values) {
  PREGATE_CHECK(!values.empty());
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  const double median =
      values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
  return {.median = median, .min = values.front(), .max = values.back()};
}

absl::StatusOr<Comparison> Compare(const Measurement& measured,
                                   const Measurement& bound,
                                   size_t warmup,
                                   size_t iterations) {
  std::vector<double> measured_rates;
  std::vector<double> bound_rates;
  std::vector<double> ratios;
  for (size_t i = 0; i < warmup + iterations; ++i) {
    PREGATE_ASSIGN_OR_RETURN(const double measured_rate, measured());
    PREGATE_ASSIGN_OR_RETURN(const double bound_rate, bound());
    if (i < warmup) continue;
    measured_rates.push_back(measured_rate);
    bound_rates.push_back(bound_rate);
    ratios.push_back(measured_rate / bound_rate);
  }
  return Comparison{.measured = SpreadOf(measured_rates),
                    .bound = SpreadOf(bound_rates),
                    .ratio = SpreadOf(ratios)};
}

}  // namespace pregate
