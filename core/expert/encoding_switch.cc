#include "core/expert/encoding_switch.h"

#include <algorithm>

#include "core/base/check.h"

namespace pregate {
namespace {

// The way back takes longer: a change costs loads.
constexpr uint32_t kWindowsToSmaller = 2;
constexpr uint32_t kWindowsToExact = 4;

}  // namespace

EncodingSwitch::EncodingSwitch(double smaller_share) : smaller_share_(smaller_share) {
  PREGATE_CHECK(smaller_share > 0 && smaller_share <= 1);
}

bool EncodingSwitch::SpeaksForChange() const {
  const double step = ToSeconds(step_);
  const double stall = std::min(ToSeconds(stall_), step);
  if (!is_smaller_) return step > 0 && stall >= kPressed * step;
  const double exact_stall = stall / smaller_share_;
  return exact_stall <= kRelieved * (step - stall + exact_stall);
}

void EncodingSwitch::OnStep(Duration step, Duration stall) {
  step_ += step;
  stall_ += stall;
  if (++num_steps_ < kWindowSteps) return;
  num_windows_ = SpeaksForChange() ? num_windows_ + 1 : 0;
  if (num_windows_ == (is_smaller_ ? kWindowsToExact : kWindowsToSmaller)) {
    is_smaller_ = !is_smaller_;
    num_windows_ = 0;
  }
  num_steps_ = 0;
  step_ = stall_ = {};
}

}  // namespace pregate
