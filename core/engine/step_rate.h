// How fast steps are, at best.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/base/clock.h"

namespace pregate {

// The fastest steps of late, not their mean: whoever is turned away because of it would most likely
// have been too late. Follows steps that become faster at once, and slower ones by kDrift a step.
// Every refusal makes it more hopeful, so that no slow step, such as the first one with cold
// caches, turns requests away for ever. Not thread-safe.
class StepRate {
 public:
  static constexpr double kDrift = 1.05;

  explicit StepRate(uint32_t max_batch_tokens) : max_batch_tokens_(max_batch_tokens) {}

  void OnStep(size_t num_tokens, Duration duration) {
    Follow(ToSeconds(duration), step_seconds_);
    if (num_tokens == max_batch_tokens_) Follow(ToSeconds(duration), full_step_seconds_);
  }
  void OnRefusal() {
    step_seconds_ /= kDrift;
    full_step_seconds_ /= kDrift;
  }

  // What a prompt takes to its first token when it has all steps to itself: full steps, and one
  // with the rest. Zero before the first step.
  Duration AtLeast(uint32_t prompt_tokens) const {
    const uint32_t full_steps = prompt_tokens / max_batch_tokens_;
    const uint32_t rest = prompt_tokens % max_batch_tokens_ > 0 ? 1 : 0;
    return FromSeconds(full_steps * std::max(step_seconds_, full_step_seconds_) +
                       rest * step_seconds_);
  }

 private:
  static void Follow(double seconds, double& fastest) {
    fastest = fastest > 0 ? std::min(seconds, kDrift * fastest) : seconds;
  }

  const uint32_t max_batch_tokens_;
  double step_seconds_ = 0;       // of any step
  double full_step_seconds_ = 0;  // of one with max_batch_tokens; 0 = none yet
};

}  // namespace pregate
