// What a component shows a StatsVisitor, kept for a test to look at.
#pragma once

#include <map>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/stats.h"

namespace pregate {

// Series by `name` or `name{label="value",…}`.
class RecordedStats final : public StatsVisitor {
 public:
  void OnCounter(absl::string_view name,
                 absl::string_view help,
                 const Labels& labels,
                 double value) override {
    Record(name, help, labels);
    values_[Key(name, labels)] = value;
  }
  void OnGauge(absl::string_view name,
               absl::string_view help,
               const Labels& labels,
               double value) override {
    OnCounter(name, help, labels, value);
  }
  void OnHistogram(absl::string_view name,
                   absl::string_view help,
                   const Labels& labels,
                   const Histogram::Snapshot& snapshot) override {
    Record(name, help, labels);
    histograms_[Key(name, labels)] = snapshot;
  }

  // Of a counter or gauge. The series exists.
  double value(const std::string& key) const { return values_.at(key); }
  const Histogram::Snapshot& histogram(const std::string& key) const { return histograms_.at(key); }
  double sum(const std::string& key) const { return histogram(key).sum; }
  uint64_t count(const std::string& key) const {
    uint64_t count = 0;
    for (const uint64_t bucket : histogram(key).bucket_counts) count += bucket;
    return count;
  }

  const std::map<std::string, double>& values() const { return values_; }
  const std::map<std::string, Histogram::Snapshot>& histograms() const { return histograms_; }
  // What breaks the rules of StatsVisitor: a series shown twice, a name's series not in a row, a
  // missing help text. "" when all is well.
  const std::string& violation() const { return violation_; }

 private:
  static std::string Key(absl::string_view name, const Labels& labels) {
    std::string key(name);
    for (size_t i = 0; i < labels.size(); ++i) {
      absl::StrAppend(&key, i == 0 ? "{" : ",", labels[i].first, "=\"", labels[i].second, "\"");
    }
    return labels.empty() ? key : key + "}";
  }
  void Record(absl::string_view name, absl::string_view help, const Labels& labels) {
    const std::string key = Key(name, labels);
    if (help.empty()) violation_ = absl::StrCat(name, " has no help text");
    if (values_.count(key) + histograms_.count(key) > 0) violation_ = absl::StrCat(key, " twice");
    if (name != last_name_ && !names_.emplace(name).second) {
      violation_ = absl::StrCat("the series of ", name, " are not in a row");
    }
    last_name_ = std::string(name);
  }

  std::map<std::string, double> values_;
  std::map<std::string, Histogram::Snapshot> histograms_;
  std::set<std::string> names_;
  std::string last_name_;
  std::string violation_;
};

}  // namespace pregate
