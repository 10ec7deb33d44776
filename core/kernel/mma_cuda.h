// The tensor cores' product of 16 × 16 by 16 × 8 bfloat16 numbers, asynchronous copies into shared
// memory (both since compute capability 8.0), and numbers of few bits as bfloat16. PTX ISA, "Warp
// Level Matrix Instructions: mma.m16n8k16" and "cp.async".
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace pregate {

// Operands as a lane holds them. With row = lane / 4 and quarter = lane % 4: of A the inputs
// 2 · quarter, + 1 of `row` and row + 8, then inputs 8 further of both; of B the same inputs of
// column `row`; of C the columns 2 · quarter, + 1 of `row`, then of row + 8.
struct MmaA {
  uint32_t upper;
  uint32_t lower;
  uint32_t upper_next;
  uint32_t lower_next;
};
struct MmaB {
  uint32_t first;
  uint32_t next;
};
struct MmaC {
  float v[4];
};

// c += a · b.
__device__ inline void Mma(const MmaA& a, const MmaB& b, MmaC& c) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c.v[0]), "+f"(c.v[1]), "+f"(c.v[2]), "+f"(c.v[3])
      : "r"(a.upper),
        "r"(a.lower),
        "r"(a.upper_next),
        "r"(a.lower_next),
        "r"(b.first),
        "r"(b.next));
}

// Copies kBytes (4 or 16) into shared memory, or zeros where nothing is to be read.
template <int kBytes>
__device__ inline void CopyAsync(void* to, const void* from, bool reads) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  const int source_bytes = reads ? kBytes : 0;
  if constexpr (kBytes == 16) {
    asm volatile(
        "cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(source_bytes)
        : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(address),
                 "l"(from),
                 "n"(kBytes),
                 "r"(source_bytes)
                 : "memory");
  }
}
__device__ inline void CommitCopies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Until all but the thread's last kPending groups of copies have arrived.
template <int kPending>
__device__ inline void WaitForCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// Between two kernels in a stream, the second launched with programmatic stream serialization (CUDA
// C++ Programming Guide, "Programmatic Dependent Launch"): the second's blocks may start once all
// of the first's have said so, and see what it wrote once they have waited. Elsewhere the second
// starts late enough.
__device__ inline void LetNextGridStart() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}
__device__ inline void WaitForLastGrid() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

__device__ inline float WidenBfloat16(uint16_t bits) {
  return __uint_as_float(uint32_t{bits} << 16);
}
// To the nearest, ties to even.
__device__ inline uint16_t RoundToBfloat16(float value) {
  return __bfloat16_as_ushort(__float2bfloat16_rn(value));
}

// Two neighbours of four signed bytes, the first two or the last, as bfloat16. Behind the exponent
// byte 0x43 the lower seven bits stand for 128 + bits, and the sign bit alone for 128 or 256: their
// difference is the number.
template <int kHalf>
__device__ inline uint32_t Int8Pair(uint32_t bytes) {
  const uint32_t both = __byte_perm(bytes, 0x43434343, kHalf == 0 ? 0x4140 : 0x4342);
  const uint32_t bits = both & 0xff7fff7f;
  const uint32_t sign = both & 0xff80ff80;
  uint32_t numbers;
  constexpr uint32_t kMinusOnes = 0xbf80bf80;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(numbers) : "r"(sign), "r"(kMinusOnes), "r"(bits));
  return numbers;
}

// 128 + the four-bit numbers at `shift` of two neighbours of four bytes, as bfloat16.
template <int kHalf>
__device__ inline uint32_t Int4Pair(uint32_t bytes, int shift) {
  const uint32_t spread = __byte_perm(bytes, 0, kHalf == 0 ? 0x1100 : 0x3322);
  return (spread >> shift & 0x000f000f) | 0x43004300;
}

}  // namespace pregate
