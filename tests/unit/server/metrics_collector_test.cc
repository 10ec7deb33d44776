#include "server/metrics_collector.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "prometheus/text_serializer.h"
#include "server/process_stats.h"
#include "tests/support/recorded_stats.h"

namespace pregate {
namespace {

using ::testing::HasSubstr;

std::string Text(const MetricsCollector& collector) {
  return prometheus::TextSerializer().Serialize(collector.Collect());
}

TEST(MetricsCollectorTest, AddsPrefixAndModel) {
  const MetricsCollector collector(
      [] { return "m"; },
      {[](StatsVisitor& visitor) {
         visitor.OnCounter("things_total", "Things.", {{"kind", "a"}}, 1);
         visitor.OnCounter("things_total", "Things.", {{"kind", "b"}}, 2);
       },
       [](StatsVisitor& visitor) { visitor.OnGauge("depth", "How deep.", {}, -0.5); }});
  EXPECT_EQ(Text(collector),
            "# HELP pregate_things_total Things.\n"
            "# TYPE pregate_things_total counter\n"
            "pregate_things_total{model=\"m\",kind=\"a\"} 1\n"
            "pregate_things_total{model=\"m\",kind=\"b\"} 2\n"
            "# HELP pregate_depth How deep.\n"
            "# TYPE pregate_depth gauge\n"
            "pregate_depth{model=\"m\"} -0.5\n");
}

TEST(MetricsCollectorTest, BucketsAreCumulative) {
  Histogram histogram({1, 2});
  for (const double value : {0.5, 1.0, 1.5, 8.0}) histogram.Observe(value);
  const MetricsCollector collector([] { return "m"; }, {[&](StatsVisitor& visitor) {
                                     visitor.OnHistogram("size", "Sizes.", {}, histogram.Read());
                                   }});
  EXPECT_EQ(Text(collector),
            "# HELP pregate_size Sizes.\n"
            "# TYPE pregate_size histogram\n"
            "pregate_size_count{model=\"m\"} 4\n"
            "pregate_size_sum{model=\"m\"} 11\n"
            "pregate_size_bucket{model=\"m\",le=\"1\"} 2\n"
            "pregate_size_bucket{model=\"m\",le=\"2\"} 3\n"
            "pregate_size_bucket{model=\"m\",le=\"+Inf\"} 4\n");
}

TEST(MetricsCollectorTest, TheModelIsThatOfTheScrape) {
  std::string model = "before";
  const MetricsCollector collector([&] { return model; }, {[](StatsVisitor& visitor) {
                                     visitor.OnGauge("depth", "How deep.", {}, 1);
                                   }});
  EXPECT_THAT(Text(collector), HasSubstr("{model=\"before\"}"));
  model = "after";
  EXPECT_THAT(Text(collector), HasSubstr("{model=\"after\"}"));
}

TEST(MetricsCollectorTest, TheProcessHasStandardNames) {
  const MetricsCollector collector([] { return "m"; }, {VisitProcessStats});
  const std::string text = Text(collector);
  for (const char* name : {"process_cpu_seconds_total ",
                           "process_start_time_seconds ",
                           "process_virtual_memory_bytes ",
                           "process_resident_memory_bytes ",
                           "process_open_fds ",
                           "process_max_fds "}) {
    EXPECT_THAT(text, HasSubstr(std::string("\n") + name));
  }
  RecordedStats stats;
  VisitProcessStats(stats);
  EXPECT_GT(stats.value("process_resident_memory_bytes"), 1e6);
  EXPECT_GE(stats.value("process_virtual_memory_bytes"),
            stats.value("process_resident_memory_bytes"));
  EXPECT_GE(stats.value("process_open_fds"), 3);
  EXPECT_LE(stats.value("process_open_fds"), stats.value("process_max_fds"));
  EXPECT_GT(stats.value("process_start_time_seconds"), 1.7e9) << "seconds since 1970";
}

}  // namespace
}  // namespace pregate
