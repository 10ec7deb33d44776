// The settings that follow from a profile, and why.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/expert/profile.h"

namespace pregate {

// A flag that the profile speaks for.
struct Recommendation {
  std::string flag;    // with underscores, as in the configuration file
  std::string value;   // in flag syntax; "" = better left out
  std::string reason;  // one line
  // What users of the card have found good before anything was measured, for cards that are known;
  // else "". Where `value` is another, a measurement has contradicted it.
  std::string preset;
};

// Settings for `model` on the profiled device, in this order: max_running, expert_codec,
// expert_capacity (experts on the device at a time), memory_strategy, speculation_aggressiveness.
// With all of them the model's memory plan fits. A measurement wins over a preset. The errors of
// ProfiledModel::PlanRoom.
absl::StatusOr<std::vector<Recommendation>> Recommend(const DeviceProfile& profile,
                                                      const ProfiledModel& model);

// The measurements as a table for people: GB/s are 10⁹ bytes a second.
std::string FormatProfile(const DeviceProfile& profile);

// The reason, and what it makes of the preset: one line.
std::string Explain(const Recommendation& recommendation);

}  // namespace pregate
