// Which instructions of the CPU the kernels may use.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace pregate {

// Each level includes the ones before it.
enum class CpuIsa {
  kBaseline,  // any x86-64
  kAvx2,      // x86-64-v3: AVX2, FMA, F16C, BMI
  kAvx512,    // x86-64-v4: AVX-512 F, BW, CD, DQ, VL
};

// "baseline", "avx2", "avx512": the values of --cpu-isa.
absl::string_view CpuIsaName(CpuIsa isa);

// What CPUID and XCR0 say.
struct CpuFeatures {
  uint32_t leaf1_ecx = 0;
  uint32_t leaf7_ebx = 0;
  uint32_t extended1_ecx = 0;  // leaf 0x80000001
  uint64_t xcr0 = 0;           // register states that the system saves; 0 without OSXSAVE
};
CpuFeatures ReadCpuFeatures();

// The highest level whose instructions the CPU has and whose registers the system saves. A virtual
// CPU may report the one without the other.
CpuIsa HighestCpuIsa(const CpuFeatures& features);

// The levels of this machine, lowest first.
std::vector<CpuIsa> AvailableCpuIsas();

// The level for --cpu-isa: "auto" is the highest. FAILED_PRECONDITION: this CPU lacks the level
// asked for; INVALID_ARGUMENT: no such level.
absl::StatusOr<CpuIsa> ChooseCpuIsa(absl::string_view flag, CpuIsa highest);

}  // namespace pregate
