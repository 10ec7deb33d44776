#include "core/kernel/expert_mlp.h"
#include "core/kernel/lanes.h"

namespace pregate::PREGATE_CPU_LEVEL {
namespace {

PREGATE_INLINE Lanes Apply(Activation activation, Lanes x) {
  if (activation == Activation::kSilu) return x / (1.0f + Exp(-x));
  // As max(x, 0), but that a NaN stays one.
  return x <= Broadcast(0) ? Broadcast(0) : x;
}

}  // namespace

void Activate(const ActivateArgs& args, int64_t begin, int64_t end) {
  int64_t i = begin;
  for (; i + kLanes <= end; i += kLanes) {
    Lanes y = Apply(args.activation, Load(args.x + i));
    if (args.up != nullptr) y *= Load(args.up + i);
    Store(y, args.out + i);
  }
  if (i == end) return;
  Lanes y = Apply(args.activation, LoadPart(args.x + i, end - i));
  if (args.up != nullptr) y *= LoadPart(args.up + i, end - i);
  StorePart(y, args.out + i, end - i);
}

void Combine(const CombineArgs& args, int64_t begin, int64_t end) {
  for (int64_t token = begin; token < end; ++token) {
    const uint32_t* rows = args.rows + token * args.num_chosen;
    const float* weights = args.weights + token * args.num_chosen;
    float* sum = args.sum + token * args.width;
    for (int64_t i = 0; i < args.width; ++i) {
      float value = 0;
      for (int64_t k = 0; k < args.num_chosen; ++k) {
        value += weights[k] * args.expert_out[rows[k] * args.width + i];
      }
      sum[i] += value;
    }
  }
}

}  // namespace pregate::PREGATE_CPU_LEVEL
