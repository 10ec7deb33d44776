#include "bench/link_rate.h"

#include "core/device/cpu_backend.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace pregate {
namespace {

LinkRateOptions Small() {
  LinkRateOptions options;
  options.record_bytes = {10'000, 65'536};
  options.host_bytes = 4 << 20;
  options.top_k = 4;
  options.iterations = 3;
  return options;
}

TEST(LinkRate, MeasuresEachSizeEachWay) {
  CpuBackend backend;
  uint64_t steps = 0;
  const auto rates = MeasureLinkRate(backend, Small(), [&steps] { ++steps; });
  ASSERT_TRUE(rates.ok()) << rates.status();
  EXPECT_EQ(steps, NumLinkRateSteps(Small()));
  ASSERT_EQ(rates->size(), 2u);
  EXPECT_EQ(rates->at(0).record_bytes, 10'000u);
  EXPECT_EQ(rates->at(1).num_records, 4u * 16);
  for (const LinkRate& rate : *rates) {
    for (const Spread& spread : {rate.copies, rate.demanded, rate.hinted}) {
      EXPECT_GT(spread.min, 0);
      EXPECT_LE(spread.min, spread.median);
      EXPECT_LE(spread.median, spread.max);
    }
  }
}

TEST(LinkRate, IsNeverAboveTheLinksOwn) {
  CpuBackend backend(SimulatedLink{.bytes_per_second = 5e8, .latency_seconds = 1e-6});
  const auto rates = MeasureLinkRate(backend, Small(), [] {});
  ASSERT_TRUE(rates.ok()) << rates.status();
  for (const LinkRate& rate : *rates) {
    EXPECT_LE(rate.copies.max, 0.5);
    EXPECT_LE(rate.demanded.max, 0.5) << "every record is brought each time";
    EXPECT_LE(rate.hinted.max, 0.5);
  }
}

TEST(LinkRate, RefusesRecordsThatDoNotFitOnTheHost) {
  CpuBackend backend;
  LinkRateOptions options = Small();
  options.record_bytes = {uint64_t{1} << 62};
  const absl::Status status = MeasureLinkRate(backend, options, [] {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("4.0 MiB do not hold 4 layers"));
}

}  // namespace
}  // namespace pregate
