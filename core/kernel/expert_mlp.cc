#include "core/kernel/expert_mlp.h"

#include "core/kernel/grain.h"

namespace pregate {

void Activate(const CpuContext& cpu, const ActivateArgs& args) {
  // Cut at whole lanes, so that only the end of `count` is a part of them.
  constexpr int64_t kPiece = 64;
  cpu.parallel_for(
      (args.count + kPiece - 1) / kPiece, GrainFor(kPiece * 4), [&](int64_t begin, int64_t end) {
        cpu.kernels->activate(args, begin * kPiece, std::min(end * kPiece, args.count));
      });
}

void Combine(const CpuContext& cpu, const CombineArgs& args) {
  cpu.parallel_for(args.num_tokens,
                   GrainFor(args.num_chosen * args.width),
                   [&](int64_t begin, int64_t end) { cpu.kernels->combine(args, begin, end); });
}

}  // namespace pregate
