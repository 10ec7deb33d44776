// Random weights that are the same on every machine.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace pregate {

// Numbers that depend on the seed and a name alone: SplitMix64 (Steele, Lea and Flood 2014), and
// normal ones through Box and Muller's transform, since the standard library's distributions differ
// between its implementations.
class NormalNumbers {
 public:
  NormalNumbers(uint64_t seed, absl::string_view name) : state_(seed) {
    for (const char c : name) state_ = Next() ^ static_cast<unsigned char>(c);
  }

  void Fill(absl::Span<float> values, double mean, double deviation) {
    for (size_t i = 0; i < values.size(); i += 2) {
      const double radius = deviation * std::sqrt(-2 * std::log(Uniform()));
      const double angle = 2 * std::numbers::pi * Uniform();
      values[i] = static_cast<float>(mean + radius * std::cos(angle));
      if (i + 1 < values.size()) {
        values[i + 1] = static_cast<float>(mean + radius * std::sin(angle));
      }
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
  // In (0, 1).
  double Uniform() { return (static_cast<double>(Next() >> 11) + 0.5) * 0x1p-53; }

  uint64_t state_;
};

}  // namespace pregate
