#include "core/engine/step_plan.h"

#include "gtest/gtest.h"

namespace pregate {
namespace {

constexpr uint32_t kTokens[] = {1, 2, 3};

SequenceStep Prompt() { return {.token_ids = kTokens, .blocks = {}, .is_prompt = true}; }
SequenceStep Generated() {
  return {.token_ids = absl::MakeConstSpan(kTokens).first(1), .blocks = {}, .is_prompt = false};
}

TEST(StepPlan, CountsItsTokens) {
  EXPECT_EQ(StepPlan{}.num_tokens(), 0u);
  EXPECT_EQ((StepPlan{{Prompt(), Generated(), Prompt()}}).num_tokens(), 7u);
}

TEST(StepPlan, KnowsItsPhase) {
  EXPECT_EQ((StepPlan{{Prompt(), Prompt()}}).phase(), Phase::kPrefill);
  EXPECT_EQ((StepPlan{{Generated(), Generated()}}).phase(), Phase::kDecode);
  EXPECT_EQ((StepPlan{{Generated(), Prompt()}}).phase(), Phase::kMixed);
  EXPECT_EQ(StepPlan{}.phase(), Phase::kDecode);
}

}  // namespace
}  // namespace pregate
