// How a codec's bytes, as they lie in a record, become the tensor cores' first operand.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "core/kernel/codec.h"
#include "core/kernel/mma_cuda.h"

namespace pregate {

// A lane's 16 bytes of two weight rows, eight apart.
struct Bytes {
  uint4 upper;
  uint4 lower;
};

__device__ inline uint32_t Word(const uint4& v, int i) {
  return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

// How a codec's bytes become operands. A decoder has
//   kInputs      inputs in a lane's 16 bytes
//   Operand(…)   its i-th group of four inputs, of both rows, as bfloat16
struct NoneDecoder {
  static constexpr Codec kCodec = Codec::kNone;
  static constexpr int kInputs = 8;
  static __device__ MmaA Operand(const Bytes& b, uint2, const uint32_t*, int i) {
    return {Word(b.upper, 2 * i),
            Word(b.lower, 2 * i),
            Word(b.upper, 2 * i + 1),
            Word(b.lower, 2 * i + 1)};
  }
};

struct Int8Decoder {
  static constexpr Codec kCodec = Codec::kInt8;
  static constexpr int kInputs = 16;
  static __device__ MmaA Operand(const Bytes& b, uint2, const uint32_t*, int i) {
    return FromInt8(Word(b.upper, i), Word(b.lower, i));
  }
  static __device__ MmaA FromInt8(uint32_t upper, uint32_t lower) {
    return {Int8Pair<0>(upper), Int8Pair<0>(lower), Int8Pair<1>(upper), Int8Pair<1>(lower)};
  }
};

struct Int4Decoder {
  static constexpr Codec kCodec = Codec::kInt4;
  static constexpr int kInputs = 32;
  // The numbers plus 128: Scale takes that off again.
  static __device__ MmaA Operand(const Bytes& b, uint2, const uint32_t*, int i) {
    const uint32_t upper = Word(b.upper, i % 4);
    const uint32_t lower = Word(b.lower, i % 4);
    const int shift = i / 4 * 4;
    return {Int4Pair<0>(upper, shift),
            Int4Pair<0>(lower, shift),
            Int4Pair<1>(upper, shift),
            Int4Pair<1>(lower, shift)};
  }
};

struct SparseDecoder {
  static constexpr Codec kCodec = Codec::kSparse;
  static constexpr int kInputs = 32;
  // `selectors` says for each pair of places which byte goes where.
  static __device__ MmaA Operand(const Bytes& b, uint2 places, const uint32_t* selectors, int i) {
    return Int8Decoder::FromInt8(Spread(Word(b.upper, i / 2), places.x, selectors, i),
                                 Spread(Word(b.lower, i / 2), places.y, selectors, i));
  }
  static __device__ uint32_t Spread(uint32_t kept,
                                    uint32_t places,
                                    const uint32_t* selectors,
                                    int i) {
    return __byte_perm(kept, 0, selectors[(places >> (4 * i) & 15) + i % 2 * 16]);
  }
  // Byte n of four is kept number 0 (of an odd group 2), 1 (3), or nothing (4).
  static __device__ uint32_t Selector(uint32_t index) {
    const uint32_t first = index / 16 * 2;
    uint32_t selector = 0x4444;
    selector ^= (4 ^ first) << (index % 4 * 4);
    selector ^= (4 ^ (first + 1)) << (index / 4 % 4 * 4);
    return selector;
  }
};

}  // namespace pregate
