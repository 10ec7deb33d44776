#include "core/engine/step_plan.h"

namespace pregate {

size_t StepPlan::num_tokens() const {
  size_t total = 0;
  for (const SequenceStep& step : sequences) total += step.token_ids.size();
  return total;
}

Phase StepPlan::phase() const {
  bool prompts = false;
  bool generated = false;
  for (const SequenceStep& step : sequences) (step.is_prompt ? prompts : generated) = true;
  if (!prompts) return Phase::kDecode;
  return generated ? Phase::kMixed : Phase::kPrefill;
}

}  // namespace pregate
