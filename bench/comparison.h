// Two ways of doing the same work, timed in turns.
#pragma once

#include <cstddef>
#include <functional>
#include <vector>

#include "absl/status/statusor.h"

namespace pregate {

// Of several measurements of one thing.
struct Spread {
  double median = 0;  // of an even number the mean of the two in the middle
  double min = 0;
  double max = 0;
};
// `values`: at least one.
Spread SpreadOf(std::vector<double> values);

struct Comparison {
  Spread measured;
  Spread bound;
  Spread ratio;  // measured / bound, each of one turn
};

// A rate: more is better.
using Measurement = std::function<absl::StatusOr<double>()>;

// Calls both in turns, A B A B …, `warmup` + `iterations` (≥ 1) times, and leaves the first
// `warmup` turns out: what a shared machine does to one it does to the other.
absl::StatusOr<Comparison> Compare(const Measurement& measured,
                                   const Measurement& bound,
                                   size_t warmup,
                                   size_t iterations);

}  // namespace pregate
