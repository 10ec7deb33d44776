// What the kernels' tests share: each runs at every level that this CPU has.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "core/kernel/cpu_kernels.h"

namespace pregate {

inline constexpr float kPoison = std::numeric_limits<float>::quiet_NaN();

// Cuts every loop into the smallest ranges, last first, so that a kernel which depends on how it is
// cut shows.
inline void RunInPieces(int64_t count,
                        int64_t grain,
                        absl::FunctionRef<void(int64_t begin, int64_t end)> body) {
  for (int64_t begin = (count - 1) / grain * grain; begin >= 0; begin -= grain) {
    body(begin, std::min(begin + grain, count));
  }
}

class KernelLevelTest : public testing::TestWithParam<CpuIsa> {
 protected:
  CpuContext cpu() const {
    return {.kernels = &CpuKernelsFor(GetParam()), .parallel_for = RunSerially};
  }
  CpuContext cut_cpu() const {
    return {.kernels = &CpuKernelsFor(GetParam()), .parallel_for = RunInPieces};
  }
  static CpuContext baseline() {
    return {.kernels = &CpuKernelsFor(CpuIsa::kBaseline), .parallel_for = RunSerially};
  }

  std::vector<float> Random(size_t count, float scale = 1) {
    std::normal_distribution<float> normal(0, scale);
    std::vector<float> numbers(count);
    for (float& number : numbers) number = normal(engine_);
    return numbers;
  }
  std::mt19937& engine() { return engine_; }

 private:
  std::mt19937 engine_{1};  // the same numbers every time
};

inline std::string LevelName(const testing::TestParamInfo<CpuIsa>& info) {
  return std::string(CpuIsaName(info.param));
}

#define PREGATE_INSTANTIATE_LEVELS(suite) \
  INSTANTIATE_TEST_SUITE_P(Levels, suite, testing::ValuesIn(AvailableCpuIsas()), LevelName)

inline bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// ‖a − b‖ ≤ tolerance · ‖b‖, false when a holds a NaN.
inline bool AreNear(const std::vector<float>& a, const std::vector<double>& b, double tolerance) {
  double difference = 0;
  double norm = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    norm += b[i] * b[i];
  }
  return a.size() == b.size() && std::sqrt(difference) <= tolerance * std::sqrt(norm);
}

inline uint16_t RoundedToBfloat16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

inline float FromBfloat16Bits(uint16_t x) {
  const uint32_t bits = uint32_t{x} << 16;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

}  // namespace pregate
