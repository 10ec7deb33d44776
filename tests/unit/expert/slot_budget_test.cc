#include "core/expert/slot_budget.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace pregate {
namespace {

using ::testing::Eq;
using ::testing::Optional;

constexpr uint64_t kPlanned = 400;
constexpr uint64_t kSlot = 10;

// A device of 1000 bytes.
std::optional<uint64_t> Look(SlotBudget& budget, uint64_t free, uint64_t held, uint64_t allowed) {
  return budget.Update(
      {.total_bytes = 1000, .free_bytes = free, .held_bytes = held, .budget_bytes = allowed});
}

TEST(SlotBudget, StaysWhileSomeMemoryIsFree) {
  SlotBudget budget(kPlanned, kSlot);
  for (const uint64_t free : {50, 75, 99, 100, 900}) {
    EXPECT_EQ(Look(budget, free, 400, kPlanned), std::nullopt) << free;
  }
}

TEST(SlotBudget, GivesUpWhatIsMissing) {
  SlotBudget budget(kPlanned, kSlot);
  EXPECT_THAT(Look(budget, 49, 400, kPlanned), Optional(Eq(374)));
  EXPECT_THAT(Look(budget, 0, 400, kPlanned), Optional(Eq(325)));
}

TEST(SlotBudget, CountsFromWhatIsHeldNotFromWhatWasAllowed) {
  SlotBudget budget(kPlanned, kSlot);
  EXPECT_THAT(Look(budget, 25, 200, kPlanned), Optional(Eq(150)));
}

TEST(SlotBudget, KeepsASlot) {
  SlotBudget budget(kPlanned, kSlot);
  EXPECT_THAT(Look(budget, 0, 40, kPlanned), Optional(Eq(kSlot)));
  EXPECT_EQ(Look(budget, 0, kSlot, kSlot), std::nullopt);
}

TEST(SlotBudget, TakesBackOnlyWhatIsFreeForAWhile) {
  SlotBudget budget(kPlanned, kSlot);
  for (int look = 0; look < 4; ++look) EXPECT_EQ(Look(budget, 200, 100, 100), std::nullopt);
  EXPECT_EQ(Look(budget, 90, 100, 100), std::nullopt) << "not in a row";
  for (int look = 0; look < 4; ++look) EXPECT_EQ(Look(budget, 200, 100, 100), std::nullopt);
  EXPECT_THAT(Look(budget, 200, 100, 100), Optional(Eq(225)));
}

TEST(SlotBudget, TakesBackNoMoreThanWasPlanned) {
  SlotBudget budget(kPlanned, kSlot);
  for (int look = 0; look < 4; ++look) EXPECT_EQ(Look(budget, 900, 100, 100), std::nullopt);
  EXPECT_THAT(Look(budget, 900, 100, 100), Optional(Eq(kPlanned)));
}

// Another process takes some memory for good: the budget moves and rests, at once where it can see
// how much is missing.
TEST(SlotBudget, ANewNeighbourMovesItAndItRests) {
  for (uint64_t others = 500; others <= 1000; others += 7) {
    SlotBudget budget(kPlanned, kSlot);
    uint64_t allowed = kPlanned;
    int changes = 0;
    int last_change = 0;
    for (int look = 0; look < 100; ++look) {
      const uint64_t free = 1000 - std::min<uint64_t>(1000, others + allowed);
      const std::optional<uint64_t> changed = Look(budget, free, allowed, allowed);
      if (!changed.has_value()) continue;
      allowed = *changed;
      ++changes;
      last_change = look;
    }
    EXPECT_LE(changes, others + kPlanned <= 1000 ? 1 : 6) << others;
    EXPECT_LT(last_change, 6) << others;
  }
}

}  // namespace
}  // namespace pregate
