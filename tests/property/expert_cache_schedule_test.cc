// The expert cache on a device whose every copy and kernel runs when a seeded schedule says so:
// whatever the order, nothing is read before it was written or written while it is read. And the
// same schedules with a mistake planted, which is found each time.
//
// PREGATE_SEED sets the seed (it is printed), PREGATE_SECONDS how long the schedules go on.
#include <algorithm>
#include <cstdlib>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/property/cache_schedule.h"

namespace pregate {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* const value = std::getenv(name);
  return value == nullptr ? otherwise : std::stoull(value);
}

constexpr int kSchedules = 10;
constexpr int kSteps = 2000;

class CacheScheduleTest : public testing::Test {
 protected:
  CacheScheduleTest() { RecordProperty("seed", std::to_string(seed_)); }
  const uint64_t seed_ = FromEnvironment("PREGATE_SEED", 20);
};

TEST_F(CacheScheduleTest, NoOrderOfCopiesAndKernelsIsAHazard) {
  const RealClock clock;
  const TimePoint end =
      clock.Now() + FromSeconds(static_cast<double>(FromEnvironment("PREGATE_SECONDS", 0)));
  ExpertCache::HintedBytes hinted;
  uint64_t num_kernels = 0, num_failed = 0, num_evictions = 0;
  uint32_t most_hinted_ahead = 0;
  for (uint64_t i = 0; i < kSchedules || clock.Now() < end; ++i) {
    CacheSchedule schedule(seed_ + i);
    for (int step = 0; step < kSteps; ++step) {
      schedule.Step();
      const absl::Status status = schedule.Check();
      ASSERT_TRUE(status.ok()) << status << "\nPREGATE_SEED=" << seed_ + i << ", step " << step;
    }
    schedule.Finish();
    const absl::Status status = schedule.Check();
    ASSERT_TRUE(status.ok()) << status << "\nPREGATE_SEED=" << seed_ + i << ", at its end";
    const ExpertCache::Snapshot last = schedule.Read();
    ASSERT_EQ(last.slots.free, last.num_slots) << "PREGATE_SEED=" << seed_ + i;
    ASSERT_EQ(last.hinted.pending, 0u) << "PREGATE_SEED=" << seed_ + i;
    hinted.useful += last.hinted.useful;
    hinted.late += last.hinted.late;
    hinted.wasted += last.hinted.wasted;
    hinted.cancelled += last.hinted.cancelled;
    num_evictions += last.evictions;
    num_kernels += schedule.num_kernels();
    num_failed += schedule.num_failed();
    most_hinted_ahead = std::max(most_hinted_ahead, schedule.most_hinted_ahead());
  }
  // The schedules have been everywhere.
  EXPECT_GT(hinted.useful, 0u);
  EXPECT_GT(hinted.late, 0u);
  EXPECT_GT(hinted.wasted, 0u);
  EXPECT_GT(hinted.cancelled, 0u);
  EXPECT_GT(num_evictions, 0u);
  EXPECT_GT(num_kernels, 1000u);
  EXPECT_GT(num_failed, 0u);
  EXPECT_GT(most_hinted_ahead, 0u);
}

// The first hazard of the schedules with `mistake`; "" when there is none.
std::string FirstHazard(uint64_t seed, Mistake mistake) {
  for (uint64_t i = 0; i < kSchedules; ++i) {
    CacheSchedule schedule(seed + i, mistake);
    for (int step = 0; step < kSteps; ++step) {
      schedule.Step();
      const std::vector<Hazard> hazards = schedule.hazards();
      if (!hazards.empty()) return hazards.front().ToString();
    }
  }
  return "";
}

TEST_F(CacheScheduleTest, FindsAKernelThatDoesNotWaitForItsExpert) {
  EXPECT_THAT(FirstHazard(seed_, Mistake::kKernelSkipsReady),
              AllOf(HasSubstr("of 'compute"),
                    HasSubstr("reads"),
                    HasSubstr("that copy"),
                    HasSubstr("of 'expert copies' writes")));
}

TEST_F(CacheScheduleTest, FindsALeaseThatEndsBeforeItsKernelIsGiven) {
  EXPECT_THAT(FirstHazard(seed_, Mistake::kLeaseEndsBeforeKernel),
              AllOf(HasSubstr("of 'compute"), HasSubstr("writes"), HasSubstr("reads")));
}

TEST_F(CacheScheduleTest, FindsACopyThatDoesNotWaitForTheLastUse) {
  EXPECT_THAT(FirstHazard(seed_, Mistake::kCopySkipsLastUse),
              AllOf(HasSubstr("of 'expert copies' writes"),
                    HasSubstr("that expert"),
                    HasSubstr("of 'compute"),
                    HasSubstr("reads")));
}

TEST_F(CacheScheduleTest, FindsACopyIntoASlotThatIsLeased) {
  EXPECT_THAT(FirstHazard(seed_, Mistake::kCopyIntoLeasedSlot),
              AllOf(HasSubstr("of 'expert copies'"), HasSubstr("of 'compute")));
}

TEST_F(CacheScheduleTest, FindsARecordThatIsGivenBackBeforeItWasCopied) {
  EXPECT_THAT(FirstHazard(seed_, Mistake::kRecordReusedBeforeCopy),
              AllOf(HasSubstr("the next record from disk writes"),
                    HasSubstr("that copy"),
                    HasSubstr("of 'expert copies' reads")));
}

}  // namespace
}  // namespace pregate
