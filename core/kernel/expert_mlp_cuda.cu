// An expert's network is two products, the second of what the first left, and a sum of rows.
#include "absl/strings/str_cat.h"
#include "core/kernel/cuda_status.h"
#include "core/kernel/expert_mlp_cuda.h"

namespace pregate {
namespace {

__global__ void CombineRows(const __grid_constant__ CudaCombineArgs args) {
  const int64_t vectors = args.width / 4;
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= args.num_tokens * vectors) return;
  const int64_t token = i / vectors;
  const float4* const rows = reinterpret_cast<const float4*>(args.expert_out) +
                             token * args.num_chosen * vectors + i % vectors;
  float4 value = {0, 0, 0, 0};
  for (int64_t k = 0; k < args.num_chosen; ++k) {
    const float weight = args.weights[token * args.num_chosen + k];
    const float4 row = rows[k * vectors];
    value.x = __fmaf_rn(weight, row.x, value.x);
    value.y = __fmaf_rn(weight, row.y, value.y);
    value.z = __fmaf_rn(weight, row.z, value.z);
    value.w = __fmaf_rn(weight, row.w, value.w);
  }
  float4& sum = reinterpret_cast<float4*>(args.sum)[i];
  sum = {sum.x + value.x, sum.y + value.y, sum.z + value.z, sum.w + value.w};
}

}  // namespace

absl::Status ExpertMlp(const CudaExpertMlpArgs& args, cudaStream_t stream) {
  const RecordLayout& layout = *args.layout;
  if (layout.codec == Codec::kNone && layout.dtype != Dtype::kBfloat16) {
    return absl::InvalidArgumentError("experts on a GPU are bfloat16 or encoded, not float32");
  }
  if (layout.up.in % 32 != 0 || layout.up.out % 32 != 0) {
    return absl::InvalidArgumentError(absl::StrCat("an expert of ",
                                                   layout.up.in,
                                                   " to ",
                                                   layout.up.out,
                                                   " numbers on a GPU: 32 must divide both"));
  }
  CudaProductArgs product = {.codec = layout.codec,
                             .matrix = &layout.up,
                             .gate = layout.gate.out != 0 ? &layout.gate : nullptr,
                             .output = ProductOutput::kActivated,
                             .activation = args.activation,
                             .spans = args.experts,
                             .host_spans = args.host_experts,
                             .host_places = args.host_places,
                             .places = args.places,
                             .x = args.x,
                             .out = args.inner,
                             .num_spans = args.num_experts,
                             .places_per_row = args.num_chosen,
                             .max_rows = args.max_rows};
  const absl::Status status = EncodedProduct(product, stream);
  if (!status.ok()) return status;
  product.matrix = &layout.down;
  product.gate = nullptr;
  product.output = ProductOutput::kFloat;
  product.x = args.inner;
  product.out = args.out;
  product.places_per_row = 1;
  product.follows_product = true;
  return EncodedProduct(product, stream);
}

absl::Status Combine(const CudaCombineArgs& args, cudaStream_t stream) {
  if (args.width % 4 != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("rows of ", args.width, " numbers on a GPU: 4 must divide that"));
  }
  const int64_t vectors = args.num_tokens * args.width / 4;
  if (vectors == 0) return absl::OkStatus();
  constexpr int64_t kCombineThreads = 256;
  const auto blocks = static_cast<uint32_t>((vectors + kCombineThreads - 1) / kCombineThreads);
  CombineRows<<<blocks, kCombineThreads, 0, stream>>>(args);
  return CudaStatus(cudaGetLastError(), "launch of the sum of experts");
}

}  // namespace pregate
