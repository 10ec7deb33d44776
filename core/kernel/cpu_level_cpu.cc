#include "core/kernel/cpu_level.h"

namespace pregate::PREGATE_CPU_LEVEL {

extern const CpuKernels kKernels;
const CpuKernels kKernels = {.isa = CpuIsa::PREGATE_CPU_ISA,
                             .rms_norm = RmsNorm,
                             .rope = Rope,
                             .kv_store = KvStore,
                             .attention = Attention,
                             .route = Route,
                             .activate = Activate,
                             .combine = Combine,
                             .gather = Gather,
                             .add = Add,
                             .to_bfloat16 = ToBfloat16,
                             .from_bfloat16 = FromBfloat16,
                             .all_finite = AllFinite,
                             .encoded_product = EncodedProduct,
                             .exp_weights = ExpWeights};

}  // namespace pregate::PREGATE_CPU_LEVEL
