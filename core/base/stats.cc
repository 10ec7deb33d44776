#include "core/base/stats.h"

#include <algorithm>

#include "core/base/check.h"

namespace pregate {

Histogram::Histogram(std::vector<double> upper_bounds)
    : upper_bounds_(std::move(upper_bounds)),
      bucket_counts_(std::make_unique<std::atomic<uint64_t>[]>(upper_bounds_.size() + 1)) {
  PREGATE_CHECK(std::is_sorted(upper_bounds_.begin(), upper_bounds_.end()));
}

void Histogram::Observe(double value) {
  const auto bucket =
      std::lower_bound(upper_bounds_.begin(), upper_bounds_.end(), value) - upper_bounds_.begin();
  internal::AtomicAdd(sum_, value);
  bucket_counts_[static_cast<size_t>(bucket)].fetch_add(1, std::memory_order_relaxed);
}

Histogram::Snapshot Histogram::Read() const {
  Snapshot snapshot{.upper_bounds = upper_bounds_, .bucket_counts = {}, .sum = 0};
  for (size_t i = 0; i <= upper_bounds_.size(); ++i) {
    snapshot.bucket_counts.push_back(bucket_counts_[i].load(std::memory_order_relaxed));
  }
  snapshot.sum = sum_.load(std::memory_order_relaxed);
  return snapshot;
}

std::vector<double> ExponentialBounds(double first, double factor, double last) {
  PREGATE_CHECK(first > 0 && factor > 1 && last >= first);
  std::vector<double> bounds{first};
  while (bounds.back() < last) bounds.push_back(bounds.back() * factor);
  return bounds;
}

}  // namespace pregate
