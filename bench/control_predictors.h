// Predictors that no server can have: the controls that speculation is measured against.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "core/expert/expert_predictor.h"
#include "core/expert/routing_trace.h"
#include "core/model/forward.h"

namespace pregate {

// Every expert of the next layer, whatever was routed.
class LayerPrefetchPredictor final : public ExpertPredictor {
 public:
  LayerPrefetchPredictor(uint32_t num_layers, uint32_t num_experts)
      : num_layers_(num_layers), num_experts_(num_experts) {}

  absl::string_view name() const override { return "layer_prefetch"; }
  void Observe(const RoutedLayer& routed) override { layer_ = routed.layer; }
  void Predict(uint32_t distance, std::vector<ExpertPrediction>& predictions) override;

 private:
  const uint32_t num_layers_;
  const uint32_t num_experts_;
  uint32_t layer_ = 0;
};

// The experts that the layers to come will need, known from a trace: recorded in an earlier run of
// the same steps, or forced upon this one. Less good on purpose where asked: a simulated predictor.
class OraclePredictor final : public ExpertPredictor {
 public:
  // Each token goes where truth->ForcedExperts says; the trace has sequences, and all have tokens.
  // An expert that a layer will need is known with probability `recall`; in its place stands
  // another of the layer that is not needed, if there is one, so that precision is `recall` as
  // well. Which are known is a function of the step, the layer and the expert. Sees `horizon`
  // layers ahead.
  explicit OraclePredictor(std::shared_ptr<const RoutingTrace> truth,
                           double recall = 1,
                           uint32_t horizon = std::numeric_limits<uint32_t>::max());

  absl::string_view name() const override { return "oracle"; }
  void Observe(const RoutedLayer& routed) override;
  void Predict(uint32_t distance, std::vector<ExpertPrediction>& predictions) override;

 private:
  const std::shared_ptr<const RoutingTrace> truth_;
  const double recall_;
  const uint32_t horizon_;
  uint64_t step_ = 0;  // how many have begun
  RoutedLayer routed_;
  std::vector<uint8_t> is_taken_;  // [num_experts]: needed, or standing for one that is
};

// A predictor that is as good as one says: see OraclePredictor.
struct SimulatedPredictor {
  double recall = 1;     // and precision
  uint32_t horizon = 1;  // layers ahead that it sees and that are hinted
};

// "simulated (recall 0.90, horizon 1)".
std::string NameOf(const SimulatedPredictor& simulated);

// The distinct experts of each step's layers, as flat numbers, in the order of their look-ups.
std::vector<std::vector<uint32_t>> LookupsOf(const std::vector<Routing>& routings,
                                             uint32_t num_experts);

// The trace of `batch_size` sequences in lockstep: `routings` are of each one's prompt, then of
// steps with a token of every sequence.
RoutingTrace TraceOf(const std::vector<Routing>& routings,
                     uint32_t batch_size,
                     const std::string& model,
                     uint32_t num_experts);

}  // namespace pregate
