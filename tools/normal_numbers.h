// Random weights that are the same on every machine.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace pregate {

// Numbers that depend on the seed and a name alone: SplitMix64 (Steele, Lea and Flood 2014), of
// which one output's four quarters are added up to a number that is nearly normal (Irwin and Hall
// 1927): within 3.46 deviations, never exactly the mean. Made for gigabytes of weights, for which
// an exact normal distribution takes minutes.
class NormalNumbers {
 public:
  NormalNumbers(uint64_t seed, absl::string_view name) : state_(seed) {
    for (const char c : name) state_ = Next() ^ static_cast<unsigned char>(c);
  }

  void Fill(absl::Span<float> values, double mean, double deviation) {
    // Four whole numbers below 2^16, each of variance 2^32 / 12. No sum is in the middle.
    constexpr float kMiddle = 2 * 65535 - 0.5f;
    const auto middle = static_cast<float>(mean);
    const auto scale = static_cast<float>(deviation * std::sqrt(3.0) / 65536);
    for (float& value : values) {
      const uint64_t bits = Next();
      const auto sum = static_cast<int32_t>((bits & 0xffff) + (bits >> 16 & 0xffff) +
                                            (bits >> 32 & 0xffff) + (bits >> 48));
      value = middle + scale * (static_cast<float>(sum) - kMiddle);
    }
  }

  // All 64 bits.
  uint64_t Next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
  }

 private:
  uint64_t state_;
};

}  // namespace pregate
