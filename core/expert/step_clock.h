// Steps, as eviction policies see them: by the layers that are looked up.
#pragma once

#include <cstdint>

namespace pregate {

// Layers come in ascending order within a step; one that is not above the last begins the next.
class StepClock {
 public:
  void OnLayer(uint32_t layer) {
    if (layer <= layer_ || step_ == 0) ++step_;
    layer_ = layer;
  }
  // 0 before the first layer. Differences of steps hold when it wraps around.
  uint32_t step() const { return step_; }
  uint32_t layer() const { return layer_; }

 private:
  uint32_t step_ = 0;
  uint32_t layer_ = 0;
};

}  // namespace pregate
