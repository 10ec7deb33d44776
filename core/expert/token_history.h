// What the tokens of a step, and the tokens before them, were routed to.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "core/expert/expert_predictor.h"

namespace pregate {

// The experts of the present step's last layers, row by row, and of each sequence's token before.
// Memory: the latter takes kSequences · num_layers · experts_per_token · 2 bytes; it remembers that
// many sequences whose ids follow one another. Allocates while steps still grow.
class TokenHistory {
 public:
  static constexpr uint32_t kLayers = 5;  // of the step, with the present one
  static constexpr uint32_t kSequences = 256;

  explicit TokenHistory(const PredictorShape& shape);

  // Every layer of every step, in order; one that is not above the last begins the next step, and
  // one that leaves some out forgets the layers before.
  void Observe(const RoutedLayer& routed);

  uint32_t layer() const { return layer_; }  // observed last
  uint32_t num_tokens() const { return num_tokens_; }

  // Of row `token`, `back` (0 … kLayers - 1) layers before the present one, best first. Empty when
  // the step has no such layer.
  absl::Span<const uint16_t> Experts(uint32_t back, uint32_t token) const;

  // Of the token before row `token` in its sequence, at the layer `ahead` behind the present one,
  // which the step has not reached (≥ 1), or at the present one as it was before this step (0).
  // Empty when it is not known: a new sequence, or rows of one prompt but for the first.
  absl::Span<const uint16_t> TokenBefore(uint32_t ahead, uint32_t token) const;

 private:
  static constexpr uint16_t kUnknown = 0xffff;

  // Where the sequence of each row is remembered, once per step.
  void FindSequences(const RoutedLayer& routed);
  uint16_t* Remembered(uint32_t slot, uint32_t layer) {
    return &remembered_[(size_t{slot} * num_layers_ + layer) * width_];
  }

  const uint32_t num_layers_;
  const uint32_t num_experts_;
  const uint32_t width_;  // experts of a token
  uint32_t layer_ = 0;
  uint32_t num_tokens_ = 0;
  uint32_t depth_ = 0;                                 // layers of the step that are there
  std::array<std::vector<uint16_t>, kLayers> layers_;  // by layer % kLayers
  std::vector<uint16_t> before_;                       // [num_tokens, width_]
  std::vector<uint64_t> sequences_;                    // [kSequences]: who is remembered
  std::vector<uint16_t> remembered_;                   // [kSequences, num_layers_, width_]
  std::vector<uint32_t> slots_;                        // [num_tokens]; kSequences: none
};

}  // namespace pregate
