// What the matrix products of a pass cost by themselves.
#pragma once

#include <cstdint>

#include "core/model/forward.h"
#include "core/model/transformer.h"

namespace pregate {

// Seconds of the products of one pass of `transformer`, in a bare loop of at::mm_out: the dense
// ones over all tokens of `routing` at once, each expert's over the tokens that went to it,
// unpadded, and the head's over `num_logits`. Same weights, dtype and threads; inputs are random;
// the fastest of `repetitions` after one that does not count. What else a pass does (norms,
// attention, routing, sums) is left out, but the gates' products are in. May throw what LibTorch
// throws.
double MeasureProductSeconds(const Transformer& transformer,
                             const Routing& routing,
                             uint32_t num_logits,
                             uint32_t repetitions);

}  // namespace pregate
