// When loads take the smaller encoding: the codec "adaptive".
#pragma once

#include <cstdint>

#include "core/base/clock.h"

namespace pregate {

// A function of what steps took: no clock, no thread. Whatever the cause is — a slow link, slots
// that had to be given up, a disk behind the host's memory — it shows as time that steps wait for
// experts. Over windows of kWindowSteps steps:
//
// * Exact loads, and two windows in a row waited for at least kPressed of their time: smaller ones.
// * Smaller loads, and in four windows in a row exact ones would have waited for at most kRelieved
//   of their time, the wait being as long as the bytes are many: exact ones.
//
// Not thread-safe.
class EncodingSwitch {
 public:
  static constexpr uint32_t kWindowSteps = 16;
  static constexpr double kPressed = 0.2;
  static constexpr double kRelieved = 0.1;

  // `smaller_share`: the bytes of a smaller record over those of an exact one, above 0, at most 1.
  explicit EncodingSwitch(double smaller_share);

  // A step has taken `step`, `stall` of it waiting for experts.
  void OnStep(Duration step, Duration stall);

  bool is_smaller() const { return is_smaller_; }

 private:
  // Of the window that has just ended: does it speak for the other encoding?
  bool SpeaksForChange() const;

  const double smaller_share_;
  bool is_smaller_ = false;
  uint32_t num_steps_ = 0;    // of this window
  uint32_t num_windows_ = 0;  // in a row that spoke for the other encoding
  Duration step_ = {};
  Duration stall_ = {};
};

}  // namespace pregate
