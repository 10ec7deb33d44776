// What several measurements of one thing come to.
#pragma once

#include <vector>

namespace pregate {

struct Spread {
  double median = 0;  // of an even number the mean of the two in the middle
  double min = 0;
  double max = 0;
};
// `values`: at least one.
Spread SpreadOf(std::vector<double> values);

// The least value that at least `percent` (0…100) of all do not exceed: the nearest rank. `sorted`:
// ascending, at least one.
double Percentile(const std::vector<double>& sorted, double percent);

}  // namespace pregate
