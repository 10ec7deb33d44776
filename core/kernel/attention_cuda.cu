// The context is cut into parts of kPart positions. A block takes a part of a token for the query
// heads that share one head of keys: scores with a thread for each position, then the sum of values
// with a thread for each number of a head and each of several interleaved sets of positions.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/kernel/attention_cuda.h"
#include "core/kernel/cuda_status.h"
#include "core/kernel/mma_cuda.h"
#include "core/kernel/reduce_cuda.h"

namespace pregate {
namespace {

constexpr uint32_t kPart = kAttentionPart;
constexpr uint32_t kThreads = kPart;

uint32_t PartsUpTo(uint32_t max_position) { return max_position / kPart + 1; }

// A part's result for one head: sums of weighted values, the highest score, the sum of weights.
__host__ __device__ uint32_t PartFloats(uint32_t head_dim) { return head_dim + 2; }

__device__ float* PartOf(const CudaAttentionArgs& args,
                         uint32_t num_parts,
                         uint32_t token,
                         uint32_t head,
                         uint32_t part) {
  const uint64_t index = (uint64_t{token} * args.num_heads + head) * num_parts + part;
  return reinterpret_cast<float*>(args.scratch) + index * PartFloats(args.cache.head_dim);
}

// kGroup: of the query heads that share a head of keys, how many a block takes. Grid: x parts, y
// groups of heads, z tokens.
template <int kGroup>
__global__ void __launch_bounds__(kThreads)
    AttendPart(const __grid_constant__ CudaAttentionArgs args, uint32_t groups_per_kv_head) {
  extern __shared__ float shared[];
  const uint32_t part = blockIdx.x;
  const uint32_t token = blockIdx.z;
  const uint32_t position = args.positions[token];
  if (part * kPart > position) return;
  const CudaKvCache& cache = args.cache;
  const uint32_t head_dim = cache.head_dim;
  const uint32_t count = min(kPart, position + 1 - part * kPart);
  const uint32_t kv_head = blockIdx.y / groups_per_kv_head;
  const uint32_t heads_per_kv = args.num_heads / cache.num_kv_heads;
  const uint32_t first_in_kv = blockIdx.y % groups_per_kv_head * kGroup;
  const uint32_t num_heads = min(uint32_t{kGroup}, heads_per_kv - first_in_kv);
  const uint32_t first_head = kv_head * heads_per_kv + first_in_kv;

  float* const queries = shared;                                            // [kGroup, head_dim]
  float* const scores = queries + kGroup * head_dim;                        // [kGroup, kPart]
  auto* const rows = reinterpret_cast<uint32_t*>(scores + kGroup * kPart);  // [kPart]
  float* const sums = reinterpret_cast<float*>(rows + kPart);               // [kThreads, kGroup]
  __shared__ float reduced[2][kGroup][kThreads / 32];

  const float* const from = args.queries + uint64_t{token} * args.query_stride;
  for (uint32_t i = threadIdx.x; i < kGroup * head_dim; i += kThreads) {
    queries[i] = i < num_heads * head_dim ? from[first_head * head_dim + i] : 0.0f;
  }
  const uint32_t* const blocks =
      cache.block_table + uint64_t{args.sequences[token]} * cache.max_blocks;
  const uint32_t own = part * kPart + threadIdx.x;
  const bool is_inside = threadIdx.x < count;
  // Where the position's keys and values are, in rows of head_dim numbers.
  uint32_t row = 0;
  if (is_inside) {
    row = (blocks[own / cache.block_size] * cache.num_kv_heads + kv_head) * cache.block_size +
          own % cache.block_size;
  }
  rows[threadIdx.x] = row;
  __syncthreads();

  float dots[kGroup] = {};
  if (is_inside) {
    const auto* const keys = reinterpret_cast<const uint4*>(cache.keys + uint64_t{row} * head_dim);
    for (uint32_t i = 0; i < head_dim / 8; ++i) {
      const uint4 eight = keys[i];
      const uint32_t pairs[4] = {eight.x, eight.y, eight.z, eight.w};
#pragma unroll
      for (int pair = 0; pair < 4; ++pair) {
        const float first = __uint_as_float(pairs[pair] << 16);
        const float second = __uint_as_float(pairs[pair] & 0xffff0000);
        const float* const query = queries + i * 8 + pair * 2;
#pragma unroll
        for (int g = 0; g < kGroup; ++g) {
          dots[g] = __fmaf_rn(query[g * head_dim], first, dots[g]);
          dots[g] = __fmaf_rn(query[g * head_dim + 1], second, dots[g]);
        }
      }
    }
  }
  float maxima[kGroup];
  float totals[kGroup];
#pragma unroll
  for (int g = 0; g < kGroup; ++g) {
    const float score = is_inside ? __fmul_rn(dots[g], args.scale) : -INFINITY;
    maxima[g] = BlockMax<kThreads>(score, reduced[0][g]);
    const float weight = is_inside ? expf(__fsub_rn(score, maxima[g])) : 0.0f;
    scores[g * kPart + threadIdx.x] = weight;
    totals[g] = BlockSum<kThreads>(weight, reduced[1][g]);
  }
  __syncthreads();

  // Set s takes the positions s, s + num_sets, …
  const uint32_t num_sets = kThreads / head_dim;
  const uint32_t d = threadIdx.x % head_dim;
  const uint32_t set = threadIdx.x / head_dim;
  float values[kGroup] = {};
  if (set < num_sets) {
    for (uint32_t i = set; i < count; i += num_sets) {
      const float value = WidenBfloat16(cache.values[uint64_t{rows[i]} * head_dim + d]);
#pragma unroll
      for (int g = 0; g < kGroup; ++g) {
        values[g] = __fmaf_rn(scores[g * kPart + i], value, values[g]);
      }
    }
  }
#pragma unroll
  for (int g = 0; g < kGroup; ++g) sums[threadIdx.x * kGroup + g] = values[g];
  __syncthreads();
  const uint32_t num_parts = gridDim.x;
  for (uint32_t i = threadIdx.x; i < num_heads * head_dim; i += kThreads) {
    const uint32_t g = i / head_dim;
    const uint32_t at = i % head_dim;
    float sum = sums[at * kGroup + g];
    for (uint32_t s = 1; s < num_sets; ++s) {
      sum = __fadd_rn(sum, sums[(s * head_dim + at) * kGroup + g]);
    }
    const uint32_t head = first_head + g;
    float total = totals[0];
    float max = maxima[0];
#pragma unroll
    for (int other = 1; other < kGroup; ++other) {
      if (g == other) total = totals[other], max = maxima[other];
    }
    if (position < kPart) {  // what CombineParts makes of one part
      args.out[(uint64_t{token} * args.num_heads + head) * head_dim + at] =
          RoundToBfloat16(__fdiv_rn(sum, total));
      continue;
    }
    float* const result = PartOf(args, num_parts, token, head, part);
    result[at] = sum;
    if (at == 0) result[head_dim] = max, result[head_dim + 1] = total;
  }
}

// Grid: x heads, y tokens; a thread for each number of a head.
__global__ void CombineParts(const __grid_constant__ CudaAttentionArgs args, uint32_t num_parts) {
  const uint32_t head = blockIdx.x;
  const uint32_t token = blockIdx.y;
  const uint32_t position = args.positions[token];
  if (position < kPart) return;
  const uint32_t own_parts = position / kPart + 1;
  const uint32_t head_dim = args.cache.head_dim;
  const float* const first = PartOf(args, num_parts, token, head, 0);
  const uint32_t stride = PartFloats(head_dim);
  float max = -INFINITY;
  for (uint32_t p = 0; p < own_parts; ++p) max = fmaxf(max, first[p * stride + head_dim]);
  float total = 0;
  float sum = 0;
  for (uint32_t p = 0; p < own_parts; ++p) {
    const float* const part = first + p * stride;
    const float weight = expf(__fsub_rn(part[head_dim], max));
    total = __fmaf_rn(weight, part[head_dim + 1], total);
    sum = __fmaf_rn(weight, part[threadIdx.x], sum);
  }
  args.out[(uint64_t{token} * args.num_heads + head) * head_dim + threadIdx.x] =
      RoundToBfloat16(__fdiv_rn(sum, total));
}

template <int kGroup>
absl::Status Launch(const CudaAttentionArgs& args, cudaStream_t stream) {
  const uint32_t heads_per_kv = args.num_heads / args.cache.num_kv_heads;
  const uint32_t groups = (heads_per_kv + kGroup - 1) / kGroup;
  const uint32_t num_parts = PartsUpTo(args.max_position);
  const dim3 grid(num_parts, args.cache.num_kv_heads * groups, args.num_tokens);
  const size_t shared_bytes =
      (kGroup * args.cache.head_dim + kGroup * kPart + kPart + kThreads * kGroup) * sizeof(float);
  AttendPart<kGroup><<<grid, kThreads, shared_bytes, stream>>>(args, groups);
  PREGATE_RETURN_IF_ERROR(CudaStatus(cudaGetLastError(), "launch of attention"));
  if (num_parts == 1) return absl::OkStatus();
  CombineParts<<<dim3(args.num_heads, args.num_tokens), args.cache.head_dim, 0, stream>>>(
      args, num_parts);
  return CudaStatus(cudaGetLastError(), "launch of attention's sums");
}

}  // namespace

absl::Status CheckHeadDim(uint32_t head_dim) {
  if (head_dim % 32 == 0 && head_dim <= kMaxCudaHeadDim) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "head_dim: ", head_dim, "; on a GPU it is a multiple of 32 and at most ", kMaxCudaHeadDim));
}

size_t AttentionScratchBytes(uint32_t num_tokens,
                             uint32_t num_heads,
                             uint32_t head_dim,
                             uint32_t max_position) {
  return size_t{num_tokens} * num_heads * PartsUpTo(max_position) * PartFloats(head_dim) *
         sizeof(float);
}

absl::Status Attention(const CudaAttentionArgs& args, cudaStream_t stream) {
  PREGATE_RETURN_IF_ERROR(CheckHeadDim(args.cache.head_dim));
  if (args.num_tokens == 0) return absl::OkStatus();
  const uint32_t heads_per_kv = args.num_heads / args.cache.num_kv_heads;
  if (heads_per_kv == 1) return Launch<1>(args, stream);
  if (heads_per_kv == 2) return Launch<2>(args, stream);
  if (heads_per_kv <= 4) return Launch<4>(args, stream);
  return Launch<8>(args, stream);
}

}  // namespace pregate
