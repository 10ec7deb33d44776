// How well a predictor does on routing that is known.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "core/base/clock.h"
#include "core/expert/expert_predictor.h"
#include "core/expert/routing_trace.h"

namespace pregate {

struct PredictorEvaluation {
  struct Options {
    uint32_t distance = 1;  // layers ahead
    uint32_t streams = 1;   // sequences side by side, a finished one replaced by the next
    double aggressiveness = 0.7;
    double confidence = 0;
    // Is a sequence, by its index, counted? All are learned from. Null: all.
    std::function<bool(size_t sequence)> counts = nullptr;
  };
  struct Layer {
    uint64_t needed = 0;          // (step, expert)
    uint64_t found = 0;           // of them, among as many predictions as were needed
    uint64_t found_at_twice = 0;  // of them, among twice as many
    friend bool operator==(const Layer&, const Layer&) = default;
  };
  std::vector<Layer> layers;  // [num_layers]; the first `distance` have nothing
  uint64_t acted_on = 0;      // predictions that the options would act on
  uint64_t wasted = 0;        // of them, not needed
  uint64_t predictions = 0;   // calls of Predict
  double seconds = 0;         // in Observe and Predict

  // At k, the number of experts that were needed, and at 2k; 0 when nothing was.
  double recall() const;
  double recall_at_twice() const;
  double wasted_share() const;
  double seconds_per_layer() const;
};

// Plays `trace` to `predictor`, step by step and layer by layer. The trace's prompts are played
// like the rest, a token a step. A trace has neither gates nor pre-gates.
PredictorEvaluation EvaluatePredictor(ExpertPredictor& predictor,
                                      const RoutingTrace& trace,
                                      const Clock& clock,
                                      const PredictorEvaluation::Options& options);

}  // namespace pregate
