#include "core/base/stats.h"

#include "core/base/thread.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace pregate {
namespace {

using ::testing::ElementsAre;

TEST(Counter, AddsFromManyThreads) {
  Counter counter;
  {
    std::vector<std::unique_ptr<Thread>> threads;
    for (int t = 0; t < 4; ++t) {
      threads.push_back(std::make_unique<Thread>("adder", [&] {
        for (int i = 0; i < 1000; ++i) counter.Add(0.5);
      }));
    }
  }
  EXPECT_EQ(counter.value(), 2000);
}

TEST(Gauge, IsSetAndMoved) {
  Gauge gauge;
  gauge.Set(3);
  gauge.Add(-5);
  EXPECT_EQ(gauge.value(), -2);
}

TEST(Histogram, PutsAnObservationIntoTheFirstBucketThatHoldsIt) {
  Histogram histogram({1, 10});
  for (const double value : {0.5, 1.0, 1.5, 10.0, 11.0}) histogram.Observe(value);
  const Histogram::Snapshot snapshot = histogram.Read();
  EXPECT_THAT(snapshot.bucket_counts, ElementsAre(2, 2, 1));
  EXPECT_DOUBLE_EQ(snapshot.sum, 24);
}

TEST(Histogram, ExponentialBoundsReachTheLast) {
  EXPECT_THAT(ExponentialBounds(1, 2, 5), ElementsAre(1, 2, 4, 8));
  EXPECT_THAT(ExponentialBounds(1, 2, 4), ElementsAre(1, 2, 4));
}

}  // namespace
}  // namespace pregate
