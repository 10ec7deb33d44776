#include "bench/offload_plots.h"

#include <filesystem>
#include <memory>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/temp_folder.h"

namespace pregate {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

OffloadRow Row(const std::string& speculation, const std::string& control, double rate) {
  OffloadRow row;
  row.speculation = speculation;
  row.control = control;
  row.batch_size = 4;
  row.num_tokens = 10;
  row.tokens_per_second = {.median = rate, .min = rate / 2, .max = 2 * rate};
  return row;
}

OffloadComparison Comparison() {
  OffloadComparison comparison;
  comparison.model = "mini";
  comparison.codec = "int8";
  comparison.rows = {Row("none", "", 10), Row("pregate", "", 30), Row("none", "simulated", 20)};
  comparison.rows[1].experts.hinted = {.useful = 10 << 10, .late = 20 << 10, .wasted = 5 << 10};
  comparison.rows[2].experts.hinted = {.useful = 40 << 10, .cancelled = 1 << 10};
  return comparison;
}

ForcedRouting Forced() {
  ForcedRouting routing;
  routing.trace = std::make_shared<RoutingTrace>();
  routing.simulated = {.recall = 0.9, .horizon = 2};
  return routing;
}

TEST(OffloadPlots, RatesAreBarsWithTheirRanges) {
  const BarChart chart = PlotRates(Comparison(), Forced());
  EXPECT_EQ(chart.title, "Decoding: mini, codec int8, batch 4, forced routing (= marks controls)");
  EXPECT_THAT(chart.categories,
              ElementsAre("none", "pregate", "= simulated (recall 0.90, horizon 2)"));
  ASSERT_EQ(chart.series.size(), 1u);
  EXPECT_THAT(chart.series[0].values, ElementsAre(10, 30, 20));
  EXPECT_THAT(chart.series[0].ranges, ElementsAre(Pair(5, 20), Pair(15, 60), Pair(10, 40)));
}

TEST(OffloadPlots, PrefetchedBytesAreStackedByWhatBecameOfThem) {
  const BarChart chart = PlotPrefetches(Comparison(), Forced());
  EXPECT_TRUE(chart.is_stacked);
  EXPECT_THAT(chart.categories, ElementsAre("pregate", "= simulated (recall 0.90, horizon 2)"))
      << "who prefetched nothing has no bar";
  ASSERT_EQ(chart.series.size(), 4u);
  EXPECT_THAT(chart.series[0].values, ElementsAre(1, 4)) << "KiB a token";
  EXPECT_THAT(chart.series[1].values, ElementsAre(2, 0));
  EXPECT_THAT(chart.series[2].values, ElementsAre(0.5, 0));
  EXPECT_THAT(chart.series[3].values, ElementsAre(0, 0.1));
}

TEST(OffloadPlots, GoIntoAFolder) {
  const TempFolder folder;
  OffloadComparison comparison = Comparison();
  ASSERT_TRUE(WriteComparisonPlots(folder / "all", comparison, Forced()).ok());
  EXPECT_THAT(ReadFile(folder / "all/tokens_per_second.svg"), HasSubstr("tokens/s"));
  EXPECT_THAT(ReadFile(folder / "all/prefetch_bytes.svg"), HasSubstr("cancelled"));
  comparison.rows.resize(1);
  ASSERT_TRUE(WriteComparisonPlots(folder / "none", comparison, ForcedRouting()).ok());
  EXPECT_FALSE(std::filesystem::exists(folder / "none/prefetch_bytes.svg"));
}

}  // namespace
}  // namespace pregate
