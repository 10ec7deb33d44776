#include "server/availability.h"

#include "gtest/gtest.h"
#include "server/status.h"
#include "tests/support/fake_engine.h"

namespace pregate {
namespace {

TEST(AvailabilityTest, GoesFromLoadingToReadyToDraining) {
  const Logger logger;
  FakeEngine fake({}, logger);
  Availability availability;
  EXPECT_EQ(availability.state(), Availability::State::kLoading);
  EXPECT_EQ(availability.engine().status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ReasonOf(availability.engine().status()), "LOADING");
  EXPECT_EQ(availability.loaded(), nullptr);

  availability.SetReady(fake.engine());
  EXPECT_EQ(availability.state(), Availability::State::kReady);
  ASSERT_TRUE(availability.engine().ok());
  EXPECT_EQ(*availability.engine(), &fake.engine());

  availability.SetDraining();
  EXPECT_EQ(availability.state(), Availability::State::kDraining);
  EXPECT_EQ(availability.engine().status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ReasonOf(availability.engine().status()), "DRAINING");
  EXPECT_EQ(availability.loaded(), &fake.engine()) << "its statistics are still of interest";
}

TEST(AvailabilityTest, DrainingIsNotUndoneByALateModel) {
  const Logger logger;
  FakeEngine fake({}, logger);
  Availability availability;
  availability.SetDraining();
  availability.SetReady(fake.engine());
  EXPECT_EQ(availability.state(), Availability::State::kDraining);
}

}  // namespace
}  // namespace pregate
