#include "core/kernel/cpu_isa.h"

#include <cpuid.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/kernel/cpu_kernels.h"

namespace pregate {
namespace {

using testing::HasSubstr;

constexpr CpuFeatures kSkylakeServer = {
    .leaf1_ecx = bit_FMA | bit_MOVBE | bit_OSXSAVE | bit_AVX | bit_F16C | bit_SSE4_2 | bit_POPCNT,
    .leaf7_ebx = bit_BMI | bit_AVX2 | bit_BMI2 | bit_AVX512F | bit_AVX512BW | bit_AVX512CD |
                 bit_AVX512DQ | bit_AVX512VL,
    .extended1_ecx = bit_LZCNT,
    .xcr0 = 0xe7,
};

TEST(CpuIsaTest, FollowsTheCpuAndTheSystem) {
  EXPECT_EQ(HighestCpuIsa(kSkylakeServer), CpuIsa::kAvx512);
  CpuFeatures features = kSkylakeServer;
  features.leaf7_ebx &= ~uint32_t{bit_AVX512DQ};
  EXPECT_EQ(HighestCpuIsa(features), CpuIsa::kAvx2);
  features.leaf1_ecx &= ~uint32_t{bit_FMA};
  EXPECT_EQ(HighestCpuIsa(features), CpuIsa::kBaseline);
}

TEST(CpuIsaTest, NeedsTheRegistersToBeSaved) {
  CpuFeatures features = kSkylakeServer;
  features.xcr0 = 0x07;  // AVX, but not its 512-bit registers
  EXPECT_EQ(HighestCpuIsa(features), CpuIsa::kAvx2);
  features.xcr0 = 0x03;
  EXPECT_EQ(HighestCpuIsa(features), CpuIsa::kBaseline);
  features.xcr0 = 0;
  EXPECT_EQ(HighestCpuIsa(features), CpuIsa::kBaseline);
}

TEST(CpuIsaTest, ListsTheLevelsUpToTheHighest) {
  const std::vector<CpuIsa> available = AvailableCpuIsas();
  ASSERT_FALSE(available.empty());
  EXPECT_EQ(available.front(), CpuIsa::kBaseline);
  EXPECT_EQ(available.back(), HighestCpuIsa(ReadCpuFeatures()));
  for (const CpuIsa isa : available) EXPECT_EQ(CpuKernelsFor(isa).isa, isa);
}

TEST(CpuIsaTest, ChoosesWhatIsAskedFor) {
  EXPECT_EQ(ChooseCpuIsa("auto", CpuIsa::kAvx2).value(), CpuIsa::kAvx2);
  EXPECT_EQ(ChooseCpuIsa("baseline", CpuIsa::kAvx2).value(), CpuIsa::kBaseline);
  EXPECT_EQ(ChooseCpuIsa("avx512", CpuIsa::kAvx512).value(), CpuIsa::kAvx512);
}

TEST(CpuIsaTest, RefusesWhatTheCpuLacks) {
  const absl::Status lacking = ChooseCpuIsa("avx512", CpuIsa::kAvx2).status();
  EXPECT_EQ(lacking.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(lacking.message(), HasSubstr("no avx512, its highest level is avx2"));
  const absl::Status unknown = ChooseCpuIsa("sse9", CpuIsa::kAvx2).status();
  EXPECT_EQ(unknown.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(unknown.message(), HasSubstr("'sse9'"));
}

}  // namespace
}  // namespace pregate
