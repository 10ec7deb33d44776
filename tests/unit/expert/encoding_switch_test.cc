#include "core/expert/encoding_switch.h"

#include "gtest/gtest.h"

namespace pregate {
namespace {

using std::chrono::milliseconds;

// Steps of 100 ms.
void RunWindows(EncodingSwitch& encoding, uint32_t count, int stall_ms) {
  for (uint32_t i = 0; i < count * EncodingSwitch::kWindowSteps; ++i) {
    encoding.OnStep(milliseconds(100), milliseconds(stall_ms));
  }
}

TEST(EncodingSwitch, BeginsExactAndStaysSoWithoutPressure) {
  EncodingSwitch encoding(0.5);
  RunWindows(encoding, 50, 19);
  EXPECT_FALSE(encoding.is_smaller());
}

TEST(EncodingSwitch, TakesTheSmallerOneAfterTwoPressedWindows) {
  EncodingSwitch encoding(0.5);
  RunWindows(encoding, 1, 25);
  EXPECT_FALSE(encoding.is_smaller()) << "one may be chance";
  RunWindows(encoding, 1, 25);
  EXPECT_TRUE(encoding.is_smaller());
}

TEST(EncodingSwitch, WindowsUnderPressureCountOnlyInARow) {
  EncodingSwitch encoding(0.5);
  for (int i = 0; i < 10; ++i) {
    RunWindows(encoding, 1, 90);
    RunWindows(encoding, 1, 0);
  }
  EXPECT_FALSE(encoding.is_smaller());
}

TEST(EncodingSwitch, ReturnsOnceExactLoadsWouldHardlyWait) {
  EncodingSwitch encoding(0.25);
  RunWindows(encoding, 2, 60);
  ASSERT_TRUE(encoding.is_smaller());
  // With four times the bytes 10 ms become 40 of 130: still too much.
  RunWindows(encoding, 20, 10);
  EXPECT_TRUE(encoding.is_smaller());
  // 2 ms become 8 of 106.
  RunWindows(encoding, 3, 2);
  EXPECT_TRUE(encoding.is_smaller());
  RunWindows(encoding, 1, 2);
  EXPECT_FALSE(encoding.is_smaller());
}

// What made it switch must not make it switch back: else it would never rest.
TEST(EncodingSwitch, AConstantLoadChangesItOnceAtMost) {
  for (const double smaller_share : {0.1, 0.25, 0.5, 0.9, 1.0}) {
    for (int exact_stall_ms = 0; exact_stall_ms <= 400; exact_stall_ms += 5) {
      EncodingSwitch encoding(smaller_share);
      int changes = 0;
      for (int step = 0; step < 1000; ++step) {
        const bool was_smaller = encoding.is_smaller();
        const double stall_ms = exact_stall_ms * (was_smaller ? smaller_share : 1);
        encoding.OnStep(FromSeconds((50 + stall_ms) / 1000), FromSeconds(stall_ms / 1000));
        if (encoding.is_smaller() != was_smaller) ++changes;
      }
      EXPECT_LE(changes, 1) << smaller_share << ", " << exact_stall_ms;
    }
  }
}

TEST(EncodingSwitch, StepsWithoutTimeSayNothing) {
  EncodingSwitch encoding(0.5);
  for (int step = 0; step < 100; ++step) encoding.OnStep({}, {});
  EXPECT_FALSE(encoding.is_smaller());
}

}  // namespace
}  // namespace pregate
