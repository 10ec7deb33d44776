// Our statistics in Prometheus' data model.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/base/stats.h"
#include "prometheus/collectable.h"

namespace pregate {

// Asks its sources at every scrape. Names get the prefix `pregate_` and the label `model`, but for
// those of the process. Thread-safe.
class MetricsCollector final : public prometheus::Collectable {
 public:
  using Source = std::function<void(StatsVisitor&)>;

  // `model` gives the value of the label `model` at the time of a scrape; it and the sources may be
  // called by any thread.
  MetricsCollector(std::function<std::string()> model, std::vector<Source> sources);

  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  const std::function<std::string()> model_;
  const std::vector<Source> sources_;
};

}  // namespace pregate
