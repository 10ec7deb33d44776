// A block sums a row: each thread its numbers in ascending order, then a tree over the threads.
#include "core/base/status_macros.h"
#include "core/kernel/cuda_status.h"
#include "core/kernel/mma_cuda.h"
#include "core/kernel/norm_rope_cuda.h"
#include "core/kernel/reduce_cuda.h"

namespace pregate {
namespace {

constexpr uint32_t kRowThreads = 256;
constexpr uint32_t kHeadWarps = 4;

__global__ void EmbedRows(const __grid_constant__ CudaEmbedArgs args) {
  const uint16_t* const from = args.table + uint64_t{args.ids[blockIdx.x]} * args.width;
  float* const to = args.out + uint64_t{blockIdx.x} * args.width;
  for (uint32_t i = threadIdx.x; i < args.width; i += kRowThreads) to[i] = WidenBfloat16(from[i]);
}

__global__ void __launch_bounds__(kRowThreads)
    RmsNormRow(const __grid_constant__ CudaRmsNormArgs args) {
  __shared__ float shared[kRowThreads / 32];
  const uint64_t row = args.rows == nullptr ? blockIdx.x : args.rows[blockIdx.x];
  const float* const x = args.x + row * args.width;
  float sum = 0;
  for (uint32_t i = threadIdx.x; i < args.width; i += kRowThreads) sum = __fmaf_rn(x[i], x[i], sum);
  sum = BlockSum<kRowThreads>(sum, shared);
  const float scale =
      __frsqrt_rn(__fadd_rn(__fdiv_rn(sum, static_cast<float>(args.width)), args.epsilon));
  uint16_t* const out = args.out + uint64_t{blockIdx.x} * args.width;
  for (uint32_t i = threadIdx.x; i < args.width; i += kRowThreads) {
    out[i] = RoundToBfloat16(__fmul_rn(__fmul_rn(x[i], scale), args.weight[i]));
  }
}

// A warp takes a head of a token. Grid: x heads, y tokens.
__global__ void __launch_bounds__(kHeadWarps * 32)
    PrepareHeads(const __grid_constant__ CudaQkvArgs args) {
  __shared__ float rows[kHeadWarps][kMaxCudaHeadDim];
  const uint32_t warp = threadIdx.x / 32;
  const uint32_t lane = threadIdx.x % 32;
  const uint32_t num_heads = args.num_heads + 2 * args.cache.num_kv_heads;
  const uint32_t head = blockIdx.x * kHeadWarps + warp;
  if (head >= num_heads) return;
  const uint32_t token = blockIdx.y;
  const uint32_t head_dim = args.cache.head_dim;
  float* const x = args.qkv + (uint64_t{token} * num_heads + head) * head_dim;
  float* const row = rows[warp];
  for (uint32_t i = lane; i < head_dim; i += 32) row[i] = x[i];

  const bool is_query = head < args.num_heads;
  const bool is_value = head >= args.num_heads + args.cache.num_kv_heads;
  const float* const norm = is_query ? args.query_norm : args.key_norm;
  if (!is_value && norm != nullptr) {
    float sum = 0;
    for (uint32_t i = lane; i < head_dim; i += 32) sum = __fmaf_rn(row[i], row[i], sum);
    sum = WarpSum(sum);
    const float scale =
        __frsqrt_rn(__fadd_rn(__fdiv_rn(sum, static_cast<float>(head_dim)), args.epsilon));
    for (uint32_t i = lane; i < head_dim; i += 32) {
      row[i] = __fmul_rn(__fmul_rn(row[i], scale), norm[i]);
    }
  }
  __syncwarp();
  const uint32_t position = args.positions[token];
  const uint32_t half = head_dim / 2;
  const auto rotated = [&](uint32_t i) {
    const uint32_t angle = i % half;
    const float cosine = args.cosines[uint64_t{position} * half + angle];
    const float sine = args.sines[uint64_t{position} * half + angle];
    return i < half ? __fmaf_rn(row[i], cosine, -__fmul_rn(row[i + half], sine))
                    : __fmaf_rn(row[i], cosine, __fmul_rn(row[i - half], sine));
  };
  if (is_query) {
    for (uint32_t i = lane; i < head_dim; i += 32) x[i] = rotated(i);
    return;
  }
  const CudaKvCache& cache = args.cache;
  const uint32_t kv_head = (head - args.num_heads) % cache.num_kv_heads;
  const uint32_t* const blocks =
      cache.block_table + uint64_t{args.sequences[token]} * cache.max_blocks;
  const uint64_t at =
      ((uint64_t{blocks[position / cache.block_size]} * cache.num_kv_heads + kv_head) *
           cache.block_size +
       position % cache.block_size) *
      head_dim;
  uint16_t* const to = (is_value ? cache.values : cache.keys) + at;
  for (uint32_t i = lane; i < head_dim; i += 32) {
    to[i] = RoundToBfloat16(is_value ? row[i] : rotated(i));
  }
}

}  // namespace

absl::Status Embed(const CudaEmbedArgs& args, cudaStream_t stream) {
  if (args.num_rows == 0) return absl::OkStatus();
  EmbedRows<<<args.num_rows, kRowThreads, 0, stream>>>(args);
  return CudaStatus(cudaGetLastError(), "launch of the embedding");
}

absl::Status RmsNorm(const CudaRmsNormArgs& args, cudaStream_t stream) {
  if (args.num_rows == 0) return absl::OkStatus();
  RmsNormRow<<<args.num_rows, kRowThreads, 0, stream>>>(args);
  return CudaStatus(cudaGetLastError(), "launch of a norm");
}

absl::Status PrepareQkv(const CudaQkvArgs& args, cudaStream_t stream) {
  PREGATE_RETURN_IF_ERROR(CheckHeadDim(args.cache.head_dim));
  if (args.num_tokens == 0) return absl::OkStatus();
  const uint32_t num_heads = args.num_heads + 2 * args.cache.num_kv_heads;
  const dim3 grid((num_heads + kHeadWarps - 1) / kHeadWarps, args.num_tokens);
  PrepareHeads<<<grid, kHeadWarps * 32, 0, stream>>>(args);
  return CudaStatus(cudaGetLastError(), "launch of queries, keys and values");
}

}  // namespace pregate
