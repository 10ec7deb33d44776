// What finding experts costs when all of them are resident: the work that offloading adds to every
// layer of every step, apart from any copy.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/spread.h"

namespace pregate {

struct LookupCostOptions {
  uint32_t num_layers = 48;
  uint32_t num_experts = 128;  // of each layer
  uint32_t top_k = 8;          // of them a step needs, one token a step; at most num_experts
  std::string eviction = "ewma";
  uint32_t num_steps = 200;  // timed together
  uint32_t iterations = 7;   // measurements, ≥ 1, after one that is not counted
};

// Times are nanoseconds of one layer.
struct LookupCost {
  Spread lookup;  // Acquire, Next to the end, and the release of the lease
  Spread hint;    // the Hint of as many experts of the next layer
  Spread layer;   // both
  struct Prediction {
    std::string mode;
    Spread cost;  // Observe, and Predict of the next layer; gates' own products not counted
  };
  std::vector<Prediction> predictions;  // of each mode but "none"
};

// On made-up routing of this process' CPU, on the calling thread. INVALID_ARGUMENT: top_k.
absl::StatusOr<LookupCost> MeasureLookupCost(const LookupCostOptions& options);

}  // namespace pregate
