#include "core/kernel/cpu_kernels.h"

#include "core/base/check.h"

namespace pregate {

// One table per level: cpu_level_cpu.cc.
namespace baseline {
extern const CpuKernels kKernels;
}
namespace avx2 {
extern const CpuKernels kKernels;
}
namespace avx512 {
extern const CpuKernels kKernels;
}

const CpuKernels& CpuKernelsFor(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kBaseline:
      return baseline::kKernels;
    case CpuIsa::kAvx2:
      return avx2::kKernels;
    case CpuIsa::kAvx512:
      return avx512::kKernels;
  }
  PREGATE_CHECK(false, "unknown CPU level ", static_cast<int>(isa));
}

}  // namespace pregate
