// What the matrix products of a pass cost by themselves.
#pragma once

#include <cstdint>
#include <vector>

#include "core/model/cpu_compute.h"
#include "core/model/forward.h"

namespace pregate {

// A bare loop of at::mm_out over the products of a pass: the dense ones on the model's own
// weights, the experts' on random matrices of their shapes, made once. Used by one thread at a
// time. Its methods may throw what LibTorch throws.
class ProductBound {
 public:
  // `compute` outlives this.
  explicit ProductBound(const CpuCompute& compute);

  // Seconds of the products of one pass: the dense ones over all tokens of `routing` at once, each
  // expert's over the tokens that went to it, unpadded, and the head's over `num_logits`. Same
  // dtype and threads; inputs are random; the fastest of `repetitions` after one that does not
  // count. What else a pass does (norms, attention, routing, sums) is left out, but the gates'
  // products are in.
  double MeasureSeconds(const Routing& routing, uint32_t num_logits, uint32_t repetitions) const;

 private:
  const CpuCompute& compute_;
  std::vector<std::vector<Matrix>> experts_;  // [num_layers · num_experts][matrices of one]
};

}  // namespace pregate
