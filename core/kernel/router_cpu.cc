#include "core/kernel/lanes.h"
#include "core/kernel/router.h"

namespace pregate::PREGATE_CPU_LEVEL {
namespace {

// The place in the order of choice: larger logits, then lower ids; what is no number comes last.
PREGATE_INLINE bool GoesBefore(const float* logits, int64_t a, int64_t b) {
  const float x = logits[a];
  const float y = logits[b];
  if (x > y) return true;
  if (x < y) return false;
  const bool x_is_number = x == x;
  const bool y_is_number = y == y;
  return x_is_number == y_is_number ? a < b : x_is_number;
}

// Σ e^(logits[i] - max): lane i % 16, then over the lanes.
PREGATE_INLINE float SumOfExps(const float* logits, int64_t count, float max) {
  Lanes sum = Broadcast(0);
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) sum += Exp(Load(logits + i) - max);
  for (; i < count; ++i) sum[i % kLanes] += Exp(Broadcast(logits[i] - max))[0];
  return Sum(sum);
}

// The best num_chosen ids, each found as the first after the one before it.
PREGATE_INLINE void Choose(const float* logits,
                           int64_t num_experts,
                           int64_t num_chosen,
                           uint32_t* ids) {
  for (int64_t k = 0; k < num_chosen; ++k) {
    int64_t best = -1;
    for (int64_t e = 0; e < num_experts; ++e) {
      if (k > 0 && !GoesBefore(logits, ids[k - 1], e)) continue;
      if (best < 0 || GoesBefore(logits, e, best)) best = e;
    }
    ids[k] = static_cast<uint32_t>(best);
  }
}

}  // namespace

void Route(const RouteArgs& args, int64_t begin, int64_t end) {
  for (int64_t token = begin; token < end; ++token) {
    const float* x = args.x + token * args.width;
    float* logits = args.logits + token * args.num_experts;
    uint32_t* ids = args.expert_ids + token * args.num_chosen;
    float* weights = args.weights + token * args.num_chosen;
    for (int64_t e = 0; e < args.num_experts; ++e) {
      logits[e] = Dot(x, args.gate + e * args.width, args.width);
    }
    Choose(logits, args.num_experts, args.num_chosen, ids);

    const float max = logits[ids[0]];
    const float all = SumOfExps(logits, args.num_experts, max);
    float chosen = 0;
    for (int64_t k = 0; k < args.num_chosen; ++k) {
      weights[k] = Exp(Broadcast(logits[ids[k]] - max))[0] / all;
      chosen += weights[k];
    }
    if (!args.renormalize) continue;
    for (int64_t k = 0; k < args.num_chosen; ++k) weights[k] /= chosen;
  }
}

}  // namespace pregate::PREGATE_CPU_LEVEL
