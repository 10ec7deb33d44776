#include "core/kernel/router.h"

#include "core/kernel/grain.h"

namespace pregate {

void Route(const CpuContext& cpu, const RouteArgs& args) {
  cpu.parallel_for(args.num_tokens,
                   GrainFor(args.num_experts * (args.width + args.num_chosen)),
                   [&](int64_t begin, int64_t end) { cpu.kernels->route(args, begin, end); });
}

}  // namespace pregate
