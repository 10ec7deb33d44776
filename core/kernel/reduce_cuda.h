// Sums and maxima over the threads of a warp or block, in one order.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace pregate {

// The same in every lane.
__device__ inline float WarpSum(float value) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    value = __fadd_rn(value, __shfl_xor_sync(~0u, value, distance));
  }
  return value;
}
__device__ inline float WarpMax(float value) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    value = fmaxf(value, __shfl_xor_sync(~0u, value, distance));
  }
  return value;
}

// The same in every thread of a block of kThreads. `shared` [kThreads / 32] may be used again once
// all threads have passed a barrier of their own.
template <uint32_t kThreads>
__device__ inline float BlockSum(float value, float* shared) {
  value = WarpSum(value);
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  float sum = shared[0];
#pragma unroll
  for (uint32_t warp = 1; warp < kThreads / 32; ++warp) sum = __fadd_rn(sum, shared[warp]);
  return sum;
}
template <uint32_t kThreads>
__device__ inline float BlockMax(float value, float* shared) {
  value = WarpMax(value);
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  float max = shared[0];
#pragma unroll
  for (uint32_t warp = 1; warp < kThreads / 32; ++warp) max = fmaxf(max, shared[warp]);
  return max;
}

}  // namespace pregate
