// Which experts the layers to come will need. One file per mode, predictor_NAME.cc;
// docs/extending.md shows how to add one.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace pregate {

// The gates of layers to come, applied to what the present layer's experts read.
class GateLookahead {
 public:
  virtual ~GateLookahead() = default;
  // probabilities [num_tokens, num_experts] of the layer that is `distance` (≥ 1) ahead. False when
  // that layer has no gate of its own, or there is none.
  virtual bool Score(uint32_t distance, absl::Span<float> probabilities) = 0;
};

// What the router of one layer has chosen in a step. Rows are the step's tokens, the same in every
// layer of it.
struct RoutedLayer {
  uint32_t layer = 0;
  uint32_t num_tokens = 0;
  uint32_t experts_per_token = 0;
  absl::Span<const uint32_t> expert_ids;  // [num_tokens, experts_per_token], best first
  // Which sequence each token belongs to [num_tokens]; the predictor may remember what the sequence
  // did in the step before.
  absl::Span<const uint64_t> sequences;
  absl::Span<const uint32_t> positions = {};  // of each token in its sequence, like sequences
  bool is_prefill = false;                    // has tokens of prompts
  // Of a pre-gated model: the experts that the next layer will use, like expert_ids; else empty.
  absl::Span<const uint32_t> next_expert_ids;
  GateLookahead* gates = nullptr;  // null where there are none to ask
};

struct ExpertPrediction {
  uint32_t expert = 0;
  float probability = 0;  // that at least one token of the step goes to it
};

// Learns as it observes. Bounded memory. Used by one thread at a time.
class ExpertPredictor {
 public:
  virtual ~ExpertPredictor() = default;

  virtual absl::string_view name() const = 0;  // as --speculation spells it

  // Every layer of every step, in order. `routed` is valid during the call and, for Predict, until
  // the next.
  virtual void Observe(const RoutedLayer& routed) = 0;

  // Experts of the layer `distance` (≥ 1) behind the one observed last, most probable first; clears
  // `predictions` first. Empty: this mode cannot say. Does not look beyond the last layer.
  virtual void Predict(uint32_t distance, std::vector<ExpertPrediction>& predictions) = 0;

  // What was learned, as bytes; "" when the mode learns nothing.
  virtual std::string SaveState() const { return ""; }
  // INVALID_ARGUMENT: not a state of this mode and shape; nothing has changed then.
  virtual absl::Status LoadState(absl::string_view state);
};

struct PredictorShape {
  uint32_t num_layers = 0;
  uint32_t num_experts = 0;
  uint32_t experts_per_token = 0;
  bool is_pregated = false;
  bool has_gates = false;  // RoutedLayer::gates is there
};

// "none", "layer_minus_1", "multi_layer", "gate_lookahead", "pregate", "adaptive": the values of
// --speculation.
std::vector<std::string> PredictorNames();

// Null for "none". INVALID_ARGUMENT names what there is; FAILED_PRECONDITION: the model lacks what
// the mode needs (pregate: pre-gates).
absl::StatusOr<std::unique_ptr<ExpertPredictor>> MakePredictor(absl::string_view name,
                                                               const PredictorShape& shape);

}  // namespace pregate
