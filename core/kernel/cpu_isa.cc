#include "core/kernel/cpu_isa.h"

#include <cpuid.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/base/check.h"

namespace pregate {
namespace {

constexpr CpuIsa kAllIsas[] = {CpuIsa::kBaseline, CpuIsa::kAvx2, CpuIsa::kAvx512};

// Intel SDM vol. 1, 13.3: state components of XCR0.
constexpr uint64_t kAvxState = 0x06;     // SSE, AVX
constexpr uint64_t kAvx512State = 0xe6;  // and opmask, the upper halves, the upper sixteen

// x86-64 psABI, table 3.1: what each micro-architecture level adds.
constexpr uint32_t kV3Leaf1Ecx =
    bit_FMA | bit_MOVBE | bit_OSXSAVE | bit_AVX | bit_F16C | bit_SSE4_2 | bit_POPCNT;
constexpr uint32_t kV3Leaf7Ebx = bit_BMI | bit_AVX2 | bit_BMI2;
constexpr uint32_t kV3Extended1Ecx = bit_LZCNT;
constexpr uint32_t kV4Leaf7Ebx =
    bit_AVX512F | bit_AVX512BW | bit_AVX512CD | bit_AVX512DQ | bit_AVX512VL;

bool HasAll(uint64_t value, uint64_t bits) { return (value & bits) == bits; }

uint64_t ReadXcr0() {
  uint32_t low = 0;
  uint32_t high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (uint64_t{high} << 32) | low;
}

}  // namespace

absl::string_view CpuIsaName(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kBaseline:
      return "baseline";
    case CpuIsa::kAvx2:
      return "avx2";
    case CpuIsa::kAvx512:
      return "avx512";
  }
  PREGATE_CHECK(false, "unknown CPU level ", static_cast<int>(isa));
}

CpuFeatures ReadCpuFeatures() {
  CpuFeatures features;
  uint32_t eax = 0;
  uint32_t ebx = 0;
  uint32_t ecx = 0;
  uint32_t edx = 0;
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0) features.leaf1_ecx = ecx;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0) features.leaf7_ebx = ebx;
  if (__get_cpuid(0x80000001, &eax, &ebx, &ecx, &edx) != 0) features.extended1_ecx = ecx;
  if (HasAll(features.leaf1_ecx, bit_OSXSAVE)) features.xcr0 = ReadXcr0();
  return features;
}

CpuIsa HighestCpuIsa(const CpuFeatures& features) {
  const bool v3 =
      HasAll(features.leaf1_ecx, kV3Leaf1Ecx) && HasAll(features.leaf7_ebx, kV3Leaf7Ebx) &&
      HasAll(features.extended1_ecx, kV3Extended1Ecx) && HasAll(features.xcr0, kAvxState);
  if (!v3) return CpuIsa::kBaseline;
  const bool v4 = HasAll(features.leaf7_ebx, kV4Leaf7Ebx) && HasAll(features.xcr0, kAvx512State);
  return v4 ? CpuIsa::kAvx512 : CpuIsa::kAvx2;
}

std::vector<CpuIsa> AvailableCpuIsas() {
  const CpuIsa highest = HighestCpuIsa(ReadCpuFeatures());
  std::vector<CpuIsa> available;
  for (const CpuIsa isa : kAllIsas) {
    if (isa <= highest) available.push_back(isa);
  }
  return available;
}

absl::StatusOr<CpuIsa> ChooseCpuIsa(absl::string_view flag, CpuIsa highest) {
  if (flag == "auto") return highest;
  for (const CpuIsa isa : kAllIsas) {
    if (flag != CpuIsaName(isa)) continue;
    if (isa <= highest) return isa;
    return absl::FailedPreconditionError(absl::StrCat(
        "cpu-isa: this CPU has no ", flag, ", its highest level is ", CpuIsaName(highest)));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("cpu-isa: '", flag, "' is not one of auto, baseline, avx2, avx512"));
}

}  // namespace pregate
