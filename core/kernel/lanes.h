// Sixteen floats at a time, the same at every instruction level: GCC's vector types are cut into
// what the level has. Only *_cpu.cc files include it.
#pragma once

#include <cstdint>

#include "core/kernel/cpu_level.h"

#define PREGATE_INLINE static inline __attribute__((always_inline))

namespace pregate::PREGATE_CPU_LEVEL {

constexpr int64_t kLanes = 16;

typedef float Lanes __attribute__((vector_size(64)));
typedef int32_t IntLanes __attribute__((vector_size(64)));
typedef uint32_t UintLanes __attribute__((vector_size(64)));
typedef uint16_t HalfLanes __attribute__((vector_size(32)));

// What one register of the level holds. GCC 12 keeps vectors that are wider than a register in
// memory, so the inner loops of products are written in these.
constexpr int64_t kRegisterLanes = CpuIsa::PREGATE_CPU_ISA == CpuIsa::kAvx512 ? 16
                                   : CpuIsa::PREGATE_CPU_ISA == CpuIsa::kAvx2 ? 8
                                                                              : 4;
typedef float Register __attribute__((vector_size(kRegisterLanes * 4)));
typedef uint32_t UintRegister __attribute__((vector_size(kRegisterLanes * 4)));
typedef uint16_t HalfRegister __attribute__((vector_size(kRegisterLanes * 2)));

PREGATE_INLINE Lanes Broadcast(float x) {
  return Lanes{x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x};
}

PREGATE_INLINE Lanes Load(const float* x) {
  Lanes lanes;
  __builtin_memcpy(&lanes, x, sizeof(lanes));
  return lanes;
}

// The first `count` < 16, zeros behind them.
PREGATE_INLINE Lanes LoadPart(const float* x, int64_t count) {
  Lanes lanes = Broadcast(0);
  for (int64_t i = 0; i < count; ++i) lanes[i] = x[i];
  return lanes;
}

PREGATE_INLINE void Store(Lanes lanes, float* out) { __builtin_memcpy(out, &lanes, sizeof(lanes)); }

PREGATE_INLINE void StorePart(Lanes lanes, float* out, int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] = lanes[i];
}

PREGATE_INLINE float WidenBfloat16(uint16_t x) {
  const uint32_t bits = static_cast<uint32_t>(x) << 16;
  float value;
  __builtin_memcpy(&value, &bits, sizeof(value));
  return value;
}

PREGATE_INLINE Lanes Load(const uint16_t* x) {
  HalfLanes half;
  __builtin_memcpy(&half, x, sizeof(half));
  const UintLanes bits = __builtin_convertvector(half, UintLanes) << 16;
  Lanes lanes;
  __builtin_memcpy(&lanes, &bits, sizeof(lanes));
  return lanes;
}

PREGATE_INLINE Lanes LoadPart(const uint16_t* x, int64_t count) {
  Lanes lanes = Broadcast(0);
  for (int64_t i = 0; i < count; ++i) lanes[i] = WidenBfloat16(x[i]);
  return lanes;
}

PREGATE_INLINE Register LoadRegister(const float* x) {
  Register lanes;
  __builtin_memcpy(&lanes, x, sizeof(lanes));
  return lanes;
}

PREGATE_INLINE Register LoadRegister(const uint16_t* x) {
  HalfRegister half;
  __builtin_memcpy(&half, x, sizeof(half));
  const UintRegister bits = __builtin_convertvector(half, UintRegister) << 16;
  Register lanes;
  __builtin_memcpy(&lanes, &bits, sizeof(lanes));
  return lanes;
}

PREGATE_INLINE float Widen(float x) { return x; }
PREGATE_INLINE float Widen(uint16_t x) { return WidenBfloat16(x); }

PREGATE_INLINE void StoreRegister(Register lanes, float* out) {
  __builtin_memcpy(out, &lanes, sizeof(lanes));
}

// Rounds to the nearest, ties to even; a NaN stays one.
PREGATE_INLINE uint16_t RoundToBfloat16(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof(bits));
  if (x != x) return static_cast<uint16_t>((bits >> 16) | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// ((0+8)+(4+12)) + …: halves onto each other, down to one. Overwrites `part` [kLanes].
PREGATE_INLINE float SumInPlace(float* part) {
  for (int64_t width = kLanes / 2; width > 0; width /= 2) {
    for (int64_t i = 0; i < width; ++i) part[i] += part[i + width];
  }
  return part[0];
}

PREGATE_INLINE float Sum(Lanes x) {
  float part[kLanes];
  Store(x, part);
  return SumInPlace(part);
}

PREGATE_INLINE float Max(Lanes x) {
  float part[kLanes];
  Store(x, part);
  for (int64_t width = kLanes / 2; width > 0; width /= 2) {
    for (int64_t i = 0; i < width; ++i)
      part[i] = part[i] > part[i + width] ? part[i] : part[i + width];
  }
  return part[0];
}

// sums[r] = Σ x[i] · y[r · stride + i] for kRows rows of y; lane i of a sum takes the elements i,
// i + 16, … The number of rows changes no bit.
template <int64_t kRows, typename X, typename Y>
PREGATE_INLINE void Dots(const X* x, const Y* y, int64_t stride, int64_t count, float* sums) {
  constexpr int64_t kRegisters = kLanes / kRegisterLanes;
  Register sum[kRows][kRegisters] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int64_t k = 0; k < kRegisters; ++k) {
      const int64_t at = i + k * kRegisterLanes;
      const Register left = LoadRegister(x + at);
      for (int64_t r = 0; r < kRows; ++r) sum[r][k] += left * LoadRegister(y + r * stride + at);
    }
  }
  for (int64_t r = 0; r < kRows; ++r) {
    float part[kLanes];
    for (int64_t k = 0; k < kRegisters; ++k) StoreRegister(sum[r][k], part + k * kRegisterLanes);
    for (int64_t rest = i; rest < count; ++rest) {
      part[rest - i] += Widen(x[rest]) * Widen(y[r * stride + rest]);
    }
    sums[r] = SumInPlace(part);
  }
}

// Σ x[i] · y[i].
template <typename X, typename Y>
PREGATE_INLINE float Dot(const X* x, const Y* y, int64_t count) {
  float sum;
  Dots<1>(x, y, 0, count, &sum);
  return sum;
}

// e^x to 2 units in the last place; 0 below -87.3, infinity above 88.7, NaN for NaN. Cephes' expf
// (Moshier): e^x = 2^n · e^r with |r| ≤ ln 2 / 2.
PREGATE_INLINE Lanes Exp(Lanes x) {
  const Lanes lowest = Broadcast(-87.33654f);
  const Lanes highest = Broadcast(88.72283f);
  Lanes bounded = x < lowest ? lowest : x;
  bounded = bounded > highest ? highest : bounded;

  // Adding 1.5 · 2^23 rounds to a whole number, which is then in the low bits.
  const Lanes magic = Broadcast(12582912.0f);
  const Lanes shifted = bounded * 1.44269504088896341f + magic;
  const Lanes n = shifted - magic;
  UintLanes exponent;
  __builtin_memcpy(&exponent, &shifted, sizeof(exponent));

  const Lanes r = (bounded - n * 0.693359375f) - n * -2.12194440e-4f;
  Lanes polynomial = Broadcast(1.9875691500e-4f);
  polynomial = polynomial * r + 1.3981999507e-3f;
  polynomial = polynomial * r + 8.3334519073e-3f;
  polynomial = polynomial * r + 4.1665795894e-2f;
  polynomial = polynomial * r + 1.6666665459e-1f;
  polynomial = polynomial * r + 5.0000001201e-1f;
  const Lanes mantissa = polynomial * (r * r) + r + 1.0f;

  // 2^n in two factors, since 2^128 is no float.
  const IntLanes whole = (IntLanes)(exponent - 0x4b400000u);
  const IntLanes half = whole >> 1;
  const UintLanes first_bits = (UintLanes)(half + 127) << 23;
  const UintLanes second_bits = (UintLanes)(whole - half + 127) << 23;
  Lanes first;
  Lanes second;
  __builtin_memcpy(&first, &first_bits, sizeof(first));
  __builtin_memcpy(&second, &second_bits, sizeof(second));
  Lanes result = mantissa * first * second;
  result = x < lowest ? Broadcast(0) : result;
  result = x > highest ? Broadcast(__builtin_inff()) : result;
  return x == x ? result : x;
}

}  // namespace pregate::PREGATE_CPU_LEVEL
