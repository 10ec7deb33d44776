#include "server/metrics_collector.h"

#include <limits>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "prometheus/metric_family.h"

namespace pregate {
namespace {

// Gathers the series of one scrape into families; the visitor's contract is that all series of one
// name come in a row.
class FamilyBuilder final : public StatsVisitor {
 public:
  explicit FamilyBuilder(std::string model) : model_(std::move(model)) {}

  void OnCounter(absl::string_view name,
                 absl::string_view help,
                 const Labels& labels,
                 double value) override {
    Add(name, help, prometheus::MetricType::Counter, labels).counter.value = value;
  }

  void OnGauge(absl::string_view name,
               absl::string_view help,
               const Labels& labels,
               double value) override {
    Add(name, help, prometheus::MetricType::Gauge, labels).gauge.value = value;
  }

  void OnHistogram(absl::string_view name,
                   absl::string_view help,
                   const Labels& labels,
                   const Histogram::Snapshot& snapshot) override {
    prometheus::ClientMetric::Histogram& histogram =
        Add(name, help, prometheus::MetricType::Histogram, labels).histogram;
    for (size_t i = 0; i < snapshot.bucket_counts.size(); ++i) {
      histogram.sample_count += snapshot.bucket_counts[i];
      const bool is_last = i == snapshot.upper_bounds.size();
      histogram.bucket.push_back(
          {histogram.sample_count,
           is_last ? std::numeric_limits<double>::infinity() : snapshot.upper_bounds[i]});
    }
    histogram.sample_sum = snapshot.sum;
  }

  std::vector<prometheus::MetricFamily> Take() { return std::move(families_); }

 private:
  prometheus::ClientMetric& Add(absl::string_view name,
                                absl::string_view help,
                                prometheus::MetricType type,
                                const Labels& labels) {
    const bool is_process = absl::StartsWith(name, "process_");
    std::string full_name = is_process ? std::string(name) : absl::StrCat("pregate_", name);
    if (families_.empty() || families_.back().name != full_name) {
      families_.push_back(
          {.name = std::move(full_name), .help = std::string(help), .type = type, .metric = {}});
    }
    prometheus::ClientMetric& metric = families_.back().metric.emplace_back();
    if (!is_process) metric.label.push_back({"model", model_});
    for (const auto& [label, value] : labels) metric.label.push_back({label, value});
    return metric;
  }

  const std::string model_;
  std::vector<prometheus::MetricFamily> families_;
};

}  // namespace

MetricsCollector::MetricsCollector(std::function<std::string()> model, std::vector<Source> sources)
    : model_(std::move(model)), sources_(std::move(sources)) {}

std::vector<prometheus::MetricFamily> MetricsCollector::Collect() const {
  FamilyBuilder builder(model_());
  for (const Source& source : sources_) source(builder);
  return builder.Take();
}

}  // namespace pregate
