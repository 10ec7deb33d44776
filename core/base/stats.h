// Counters, gauges and histograms that core keeps, and the visitor through which a server exports
// them. Core knows no metrics library: names follow Prometheus' conventions, the prefix and the
// label `model` are the exporter's.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace pregate {

namespace internal {
// value += delta, for the doubles that C++20's atomics cover but older standard libraries do not.
inline void AtomicAdd(std::atomic<double>& value, double delta) {
  double seen = value.load(std::memory_order_relaxed);
  while (!value.compare_exchange_weak(seen, seen + delta, std::memory_order_relaxed)) {
  }
}
}  // namespace internal

// Only goes up. Thread-safe.
class Counter {
 public:
  void Add(double delta = 1) { internal::AtomicAdd(value_, delta); }
  double value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<double> value_{0};
};

// Goes up and down. Thread-safe.
class Gauge {
 public:
  void Set(double value) { value_.store(value, std::memory_order_relaxed); }
  void Add(double delta) { internal::AtomicAdd(value_, delta); }
  double value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<double> value_{0};
};

// A distribution in fixed buckets. Thread-safe; a reader may see an observation in the sum a moment
// before it is in its bucket.
class Histogram {
 public:
  struct Snapshot {
    std::vector<double> upper_bounds;     // ascending, without +Inf
    std::vector<uint64_t> bucket_counts;  // one more than bounds, not cumulative
    double sum = 0;
  };

  // `upper_bounds`: ascending, without +Inf. An observation belongs to the first bucket whose bound
  // it does not exceed.
  explicit Histogram(std::vector<double> upper_bounds);
  void Observe(double value);
  Snapshot Read() const;

 private:
  const std::vector<double> upper_bounds_;
  const std::unique_ptr<std::atomic<uint64_t>[]> bucket_counts_;
  std::atomic<double> sum_{0};
};

// Bounds first, first·factor … up to and with the first that is at least `last`.
std::vector<double> ExponentialBounds(double first, double factor, double last);

// Labels of one time series, in the order they are shown.
using Labels = std::vector<std::pair<std::string, std::string>>;

// What an exporter implements. A component calls it once per time series, all series of one name in
// a row.
class StatsVisitor {
 public:
  virtual ~StatsVisitor() = default;
  // `name` without prefix, with unit and `_total` where they belong; `help` says what is counted
  // and in which unit.
  virtual void OnCounter(absl::string_view name,
                         absl::string_view help,
                         const Labels& labels,
                         double value) = 0;
  virtual void OnGauge(absl::string_view name,
                       absl::string_view help,
                       const Labels& labels,
                       double value) = 0;
  virtual void OnHistogram(absl::string_view name,
                           absl::string_view help,
                           const Labels& labels,
                           const Histogram::Snapshot& snapshot) = 0;
};

}  // namespace pregate
