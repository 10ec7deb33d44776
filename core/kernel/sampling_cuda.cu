// A block for each row. The largest is the same in any order.
#include "core/kernel/cuda_status.h"
#include "core/kernel/sampling_cuda.h"

namespace pregate {
namespace {

constexpr uint32_t kThreads = 1024;

__device__ bool GoesBefore(float a, uint32_t a_id, float b, uint32_t b_id) {
  return a > b || (a == b && a_id < b_id);
}

__global__ void __launch_bounds__(kThreads)
    FindMostLikely(const __grid_constant__ CudaMostLikelyArgs args) {
  __shared__ float logits[kThreads / 32];
  __shared__ uint32_t ids[kThreads / 32];
  const float* const row = args.logits + uint64_t{blockIdx.x} * args.stride;
  float best = -INFINITY;
  uint32_t best_id = kNoToken;
  bool is_finite = true;
  for (uint32_t id = threadIdx.x; id < args.vocab_size; id += kThreads) {
    const float logit = row[id];
    is_finite = is_finite && isfinite(logit);
    if (logit > best) best = logit, best_id = id;
  }
  const auto reduce = [&] {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
      const float other = __shfl_xor_sync(~0u, best, distance);
      const uint32_t other_id = __shfl_xor_sync(~0u, best_id, distance);
      if (GoesBefore(other, other_id, best, best_id)) best = other, best_id = other_id;
    }
  };
  reduce();
  if (threadIdx.x % 32 == 0) {
    logits[threadIdx.x / 32] = best;
    ids[threadIdx.x / 32] = best_id;
  }
  is_finite = __syncthreads_and(is_finite) != 0;
  if (threadIdx.x >= 32) return;
  best = logits[threadIdx.x];
  best_id = ids[threadIdx.x];
  reduce();
  if (threadIdx.x == 0) args.token_ids[blockIdx.x] = is_finite ? best_id : kNoToken;
}

}  // namespace

absl::Status MostLikely(const CudaMostLikelyArgs& args, cudaStream_t stream) {
  if (args.num_rows == 0) return absl::OkStatus();
  FindMostLikely<<<args.num_rows, kThreads, 0, stream>>>(args);
  return CudaStatus(cudaGetLastError(), "launch of the most likely tokens");
}

}  // namespace pregate
