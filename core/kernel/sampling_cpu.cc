#include "core/kernel/lanes.h"
#include "core/kernel/sampling.h"

namespace pregate::PREGATE_CPU_LEVEL {

void ExpWeights(const ExpWeightsArgs& args, int64_t begin, int64_t end) {
  int64_t i = begin;
  for (; i + kLanes <= end; i += kLanes) {
    Store(Exp((Load(args.logits + i) - args.max) / args.temperature), args.weights + i);
  }
  if (i == end) return;
  const Lanes part = LoadPart(args.logits + i, end - i);
  StorePart(Exp((part - args.max) / args.temperature), args.weights + i, end - i);
}

}  // namespace pregate::PREGATE_CPU_LEVEL
