// Two kernels: a warp for each logit, so that the gate is read by the whole GPU even for one token;
// then a warp for each token.
#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/kernel/cuda_status.h"
#include "core/kernel/mma_cuda.h"
#include "core/kernel/reduce_cuda.h"
#include "core/kernel/router_cuda.h"

namespace pregate {
namespace {

constexpr uint32_t kWarps = 4;
constexpr uint32_t kMaxExperts = 1024;

// Grid: x experts, y tokens.
__global__ void __launch_bounds__(kWarps * 32)
    GateLogits(const __grid_constant__ CudaRouteArgs args) {
  const uint32_t expert = blockIdx.x * kWarps + threadIdx.x / 32;
  const uint32_t lane = threadIdx.x % 32;
  const uint64_t token = blockIdx.y;
  if (expert >= args.num_experts) return;
  const auto* const x = reinterpret_cast<const uint4*>(args.x + token * args.width);
  const auto* const gate =
      reinterpret_cast<const float4*>(args.gate + uint64_t{expert} * args.width);
  float sum = 0;
  const auto add = [&sum](uint32_t pair, float first, float second) {
    sum = __fmaf_rn(__uint_as_float(pair << 16), first, sum);
    sum = __fmaf_rn(__uint_as_float(pair & 0xffff0000), second, sum);
  };
  for (uint32_t i = lane; i < args.width / 8; i += 32) {
    const uint4 numbers = x[i];
    const float4 low = gate[2 * i];
    const float4 high = gate[2 * i + 1];
    add(numbers.x, low.x, low.y);
    add(numbers.y, low.z, low.w);
    add(numbers.z, high.x, high.y);
    add(numbers.w, high.z, high.w);
  }
  sum = WarpSum(sum);
  if (lane == 0) args.logits[token * args.num_experts + expert] = sum;
}

// Whether (a, a_id) goes before (b, b_id): numbers before what is none.
__device__ bool GoesBefore(float a, uint32_t a_id, float b, uint32_t b_id) {
  if (isnan(a) || isnan(b)) return isnan(a) ? isnan(b) && a_id < b_id : true;
  return a > b || (a == b && a_id < b_id);
}

// kPerLane · 32 ≥ num_experts. Grid: tokens.
template <int kPerLane>
__global__ void __launch_bounds__(32) Choose(const __grid_constant__ CudaRouteArgs args) {
  const uint64_t token = blockIdx.x;
  const uint32_t lane = threadIdx.x;
  constexpr uint32_t kNone = 0xffffffff;
  float logits[kPerLane];
  uint32_t ids[kPerLane];
  float max = -INFINITY;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    ids[i] = i * 32 + lane;
    const bool is_one = ids[i] < args.num_experts;
    logits[i] = is_one ? args.logits[token * args.num_experts + ids[i]] : -INFINITY;
    if (!is_one) ids[i] = kNone;
    max = fmaxf(max, logits[i]);
  }
  max = WarpMax(max);
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    if (ids[i] != kNone) sum = __fadd_rn(sum, expf(__fsub_rn(logits[i], max)));
  }
  sum = WarpSum(sum);
  if (args.probabilities != nullptr) {
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      if (ids[i] == kNone) continue;
      args.probabilities[token * args.num_experts + ids[i]] =
          __fdiv_rn(expf(__fsub_rn(logits[i], max)), sum);
    }
  }

  float chosen_sum = 0;
  for (uint32_t k = 0; k < args.num_chosen; ++k) {
    float best = -INFINITY;
    uint32_t best_id = kNone;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      if (ids[i] == kNone) continue;
      if (best_id == kNone || GoesBefore(logits[i], ids[i], best, best_id)) {
        best = logits[i];
        best_id = ids[i];
      }
    }
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
      const float other = __shfl_xor_sync(~0u, best, distance);
      const uint32_t other_id = __shfl_xor_sync(~0u, best_id, distance);
      if (other_id == kNone) continue;
      if (best_id == kNone || GoesBefore(other, other_id, best, best_id)) {
        best = other;
        best_id = other_id;
      }
    }
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      if (ids[i] == best_id) ids[i] = kNone;
    }
    const float weight = __fdiv_rn(expf(__fsub_rn(best, max)), sum);
    chosen_sum = __fadd_rn(chosen_sum, weight);
    if (lane == 0) {
      args.expert_ids[token * args.num_chosen + k] = best_id;
      args.weights[token * args.num_chosen + k] = weight;
    }
  }
  if (!args.renormalize) return;
  __syncwarp();
  for (uint32_t k = lane; k < args.num_chosen; k += 32) {
    float& weight = args.weights[token * args.num_chosen + k];
    weight = __fdiv_rn(weight, chosen_sum);
  }
}

}  // namespace

absl::Status Route(const CudaRouteArgs& args, cudaStream_t stream) {
  if (args.width % 8 != 0 || args.num_experts > kMaxExperts || args.num_chosen == 0 ||
      args.num_chosen > args.num_experts) {
    return absl::InvalidArgumentError(absl::StrCat("a router of ",
                                                   args.width,
                                                   " numbers to ",
                                                   args.num_chosen,
                                                   " of ",
                                                   args.num_experts,
                                                   " experts on a GPU: 8 must divide the numbers, ",
                                                   "and experts are at most ",
                                                   kMaxExperts));
  }
  if (args.num_tokens == 0) return absl::OkStatus();
  const dim3 grid((args.num_experts + kWarps - 1) / kWarps, args.num_tokens);
  GateLogits<<<grid, kWarps * 32, 0, stream>>>(args);
  PREGATE_RETURN_IF_ERROR(CudaStatus(cudaGetLastError(), "launch of a gate"));
  if (args.num_experts <= 32) {
    Choose<1><<<args.num_tokens, 32, 0, stream>>>(args);
  } else if (args.num_experts <= 128) {
    Choose<4><<<args.num_tokens, 32, 0, stream>>>(args);
  } else {
    Choose<kMaxExperts / 32><<<args.num_tokens, 32, 0, stream>>>(args);
  }
  return CudaStatus(cudaGetLastError(), "launch of the choice of experts");
}

}  // namespace pregate
