// Weights are the tensor cores' first operand: 16 output channels a tile, and as many rows of
// activations as second operands of 8. The order of the inputs within a product is free as long as
// both operands have the same, so that a lane takes 16 consecutive bytes of a weight row as they
// lie in the record, and the activations of just these inputs.
//
// The four warps of a block take the chunks of a row (64 bytes of values) in turn and add up their
// sums in the end, in order. That, and the order within a chunk, is the one order of every sum; how
// many channels and rows a block has is free.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "core/kernel/codec_format.h"
#include "core/kernel/expert_mlp_cuda.h"
#include "core/kernel/mma_cuda.h"

namespace pregate {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * 32;
constexpr int kChunkBytes = 64;  // of a weight row: 16 for each of a quad's lanes
constexpr int kTileChannels = 16;
constexpr int kTileRows = 8;
constexpr int kMaxRowTiles = 4;

// A product's matrix, as a kernel sees it.
struct Weights {
  uint64_t values;
  uint64_t indices;
  uint64_t scales;
  uint64_t zeros;
  uint32_t row_bytes;
  uint32_t in;
};

struct ProductArgs {
  Weights matrices[2];  // the gate and up, or one
  const ExpertSpan* experts;
  const uint32_t* places;
  const uint16_t* x;  // [rows, in]
  void* out;          // [places, out]: bfloat16 of the activated, else float32
  uint32_t out_width;
  uint32_t places_per_row;  // of x
  Activation activation;
};

// A lane's 16 bytes of two weight rows, eight apart.
struct Bytes {
  uint4 upper;
  uint4 lower;
};

__device__ uint32_t Word(const uint4& v, int i) {
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

// The shared memory of a block: a ring of stages of its own for every lane, in which only that lane
// writes and reads, so that nothing but its own copies has to be waited for; then what Int4 and
// Sparse look up. Sums of the warps take the ring's place in the end.
template <typename Decoder, int kStreams, int kRowTiles>
struct Memory {
  static constexpr bool kIsSparse = Decoder::kCodec == Codec::kSparse;
  static constexpr bool kIsInt4 = Decoder::kCodec == Codec::kInt4;
  static constexpr int kValues = 2 * kStreams;  // of 16 bytes a lane
  static constexpr int kActivations = kRowTiles * Decoder::kInputs / 8;
  static constexpr int kPlaces = kIsSparse ? kValues : 0;  // of 4 bytes
  static constexpr int kStageBytes = kThreads * ((kValues + kActivations) * 16 + kPlaces * 4);
  static constexpr int kFitting = 48 * 1024 / kStageBytes;
  static constexpr int kStages = kFitting >= 8 ? 8 : kFitting >= 4 ? 4 : 3;
  static constexpr int kSumStride = kTileChannels + 1;
  static constexpr int kSums = kStreams * kRowTiles * kTileRows * kSumStride;  // of a warp
  static constexpr int kRingBytes =
      std::max(kStages * kStageBytes, static_cast<int>(kWarps* kSums * sizeof(float)));

  static size_t Bytes(uint32_t in) {
    if (kIsSparse) return kRingBytes + 32 * sizeof(uint32_t);
    if (kIsInt4) return kRingBytes + GroupBytes((in + kInt4Group - 1) / kInt4Group) * 2 * kStreams;
    return kRingBytes;
  }
  static __host__ __device__ uint32_t GroupBytes(uint32_t groups) {
    return groups * kTileChannels * sizeof(uint16_t);
  }
};

// What a lane copies and multiplies, chunk by chunk.
template <typename Decoder, int kStreams, int kRowTiles>
struct Lane {
  using M = Memory<Decoder, kStreams, kRowTiles>;

  const std::byte* values[kStreams];
  const std::byte* indices[kStreams];
  const uint16_t* x[kRowTiles];  // null: no such row
  std::byte* ring;
  uint64_t row_skip[kStreams];  // from a lane's upper row to its lower one, 8 further
  uint32_t index_skip;
  uint32_t row_bytes;
  uint32_t quarter;  // lane % 4

  __device__ std::byte* Stage(int stage) const { return ring + stage * M::kStageBytes; }

  __device__ void Copy(uint32_t chunk, int stage) const {
    const uint32_t at = chunk * kChunkBytes + quarter * 16;
    const bool is_inside = at < row_bytes;
    std::byte* to = Stage(stage);
#pragma unroll
    for (int s = 0; s < kStreams; ++s) {
      CopyAsync<16>(to, values[s] + at, is_inside);
      CopyAsync<16>(to + kThreads * 16, values[s] + row_skip[s] + at, is_inside);
      to += 2 * kThreads * 16;
    }
    const uint32_t input = (chunk * 4 + quarter) * Decoder::kInputs;
#pragma unroll
    for (int tile = 0; tile < kRowTiles; ++tile) {
      const bool has_row = is_inside && x[tile] != nullptr;
#pragma unroll
      for (int i = 0; i < Decoder::kInputs / 8; ++i) {
        CopyAsync<16>(to, has_row ? x[tile] + input + i * 8 : nullptr, has_row);
        to += kThreads * 16;
      }
    }
    if constexpr (M::kIsSparse) {
      to = Stage(stage) + (M::kValues + M::kActivations) * kThreads * 16 - threadIdx.x * 12;
#pragma unroll
      for (int s = 0; s < kStreams; ++s) {
        CopyAsync<4>(to, indices[s] + at / 4, is_inside);
        CopyAsync<4>(to + kThreads * 4, indices[s] + index_skip + at / 4, is_inside);
        to += 2 * kThreads * 4;
      }
    }
  }
};

// sums += a stage's products. Int4's are scaled, group by group.
template <typename Decoder, int kStreams, int kRowTiles>
__device__ void Multiply(const Lane<Decoder, kStreams, kRowTiles>& lane,
                         int stage,
                         uint32_t chunk,
                         const std::byte* tables,
                         uint32_t groups,
                         MmaC (&sums)[kStreams][kRowTiles]) {
  using M = Memory<Decoder, kStreams, kRowTiles>;
  constexpr int kGroups = Decoder::kInputs / 4;  // of four inputs
  const std::byte* const from = lane.Stage(stage);
  Bytes bytes[kStreams];
  uint2 places[kStreams];
#pragma unroll
  for (int s = 0; s < kStreams; ++s) {
    bytes[s].upper = *reinterpret_cast<const uint4*>(from + (2 * s) * kThreads * 16);
    bytes[s].lower = *reinterpret_cast<const uint4*>(from + (2 * s + 1) * kThreads * 16);
    if constexpr (M::kIsSparse) {
      const std::byte* at = from + (M::kValues + M::kActivations) * kThreads * 16 -
                            threadIdx.x * 12 + 2 * s * kThreads * 4;
      places[s] = {*reinterpret_cast<const uint32_t*>(at),
                   *reinterpret_cast<const uint32_t*>(at + kThreads * 4)};
    }
  }
  MmaC parts[kStreams][kRowTiles] = {};
  MmaC totals[kRowTiles] = {};
#pragma unroll
  for (int i = 0; i < kGroups; i += 2) {
    uint4 x[kRowTiles];
#pragma unroll
    for (int tile = 0; tile < kRowTiles; ++tile) {
      const int item = M::kValues + tile * (Decoder::kInputs / 8) + i / 2;
      x[tile] = *reinterpret_cast<const uint4*>(from + item * kThreads * 16);
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int s = 0; s < kStreams; ++s) {
        const MmaA a = Decoder::Operand(
            bytes[s], places[s], reinterpret_cast<const uint32_t*>(tables), i + half);
#pragma unroll
        for (int tile = 0; tile < kRowTiles; ++tile) {
          const MmaB b = half == 0 ? MmaB{x[tile].x, x[tile].y} : MmaB{x[tile].z, x[tile].w};
          Mma(a, b, M::kIsInt4 ? parts[s][tile] : sums[s][tile]);
        }
      }
      if constexpr (M::kIsInt4) {
        constexpr uint32_t kOnes = 0x3f803f80;
#pragma unroll
        for (int tile = 0; tile < kRowTiles; ++tile) {
          const MmaB b = half == 0 ? MmaB{x[tile].x, x[tile].y} : MmaB{x[tile].z, x[tile].w};
          Mma({kOnes, kOnes, kOnes, kOnes}, b, totals[tile]);
        }
      }
    }
  }
  if constexpr (M::kIsInt4) {
    // scale · Σ (q − zero) · x = scale · (Σ (q + 128) · x − (zero + 128) · Σ x).
    const uint32_t row = threadIdx.x % 32 / 4;
#pragma unroll
    for (int s = 0; s < kStreams; ++s) {
      const auto* scales =
          reinterpret_cast<const uint16_t*>(tables + 2 * s * M::GroupBytes(groups));
      const uint16_t* zeros = scales + kTileChannels * groups;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const uint32_t at = (row + half * 8) * groups + chunk;
        const float scale = WidenBfloat16(scales[at]);
        const float zero = -128 - WidenBfloat16(zeros[at]);
#pragma unroll
        for (int tile = 0; tile < kRowTiles; ++tile) {
#pragma unroll
          for (int c = half * 2; c < half * 2 + 2; ++c) {
            const float part = __fmaf_rn(zero, totals[tile].v[c], parts[s][tile].v[c]);
            sums[s][tile].v[c] = __fmaf_rn(scale, part, sums[s][tile].v[c]);
          }
        }
      }
    }
  }
}

__device__ float Activated(Activation activation, float x) {
  if (activation == Activation::kSilu) return __fdiv_rn(x, 1.0f + expf(-x));
  return x <= 0 ? 0.0f : x;
}

// Adds up what the warps have and writes it: thread by thread a channel of a row.
template <typename Decoder, int kStreams, int kRowTiles, bool kIsGated, bool kIsActivated>
__device__ void Finish(const ProductArgs& args,
                       const ExpertSpan& expert,
                       uint32_t first_channel,
                       uint32_t first_row,
                       const MmaC (&sums)[kStreams][kRowTiles],
                       float* shared) {
  using M = Memory<Decoder, kStreams, kRowTiles>;
  const uint32_t lane = threadIdx.x % 32;
  float* const mine = shared + threadIdx.x / 32 * M::kSums;
#pragma unroll
  for (int s = 0; s < kStreams; ++s) {
#pragma unroll
    for (int tile = 0; tile < kRowTiles; ++tile) {
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        const uint32_t row = (s * kRowTiles + tile) * kTileRows + lane % 4 * 2 + c % 2;
        mine[row * M::kSumStride + lane / 4 + c / 2 * 8] = sums[s][tile].v[c];
      }
    }
  }
  __syncthreads();
  constexpr int kRows = kRowTiles * kTileRows;
  constexpr int kOutStreams = kIsGated ? 1 : kStreams;
  for (uint32_t i = threadIdx.x; i < kOutStreams * kRows * kTileChannels; i += kThreads) {
    const uint32_t stream = i / (kRows * kTileChannels);
    const uint32_t row = i / kTileChannels % kRows;
    const uint32_t tile_channel = i % kTileChannels;
    if (first_row + row >= expert.count) continue;
    const uint32_t channel = first_channel + stream * kTileChannels + tile_channel;
    const auto total = [&](uint32_t s, const Weights& weights) {
      const float* at = shared + (s * kRows + row) * M::kSumStride + tile_channel;
      float sum = at[0];
      for (int warp = 1; warp < kWarps; ++warp) sum += at[warp * M::kSums];
      if constexpr (Decoder::kCodec == Codec::kInt8 || Decoder::kCodec == Codec::kSparse) {
        sum *= reinterpret_cast<const float*>(expert.record + weights.scales)[channel];
      }
      return sum;
    };
    const uint64_t place = args.places[expert.first + first_row + row];
    const uint64_t at = place * args.out_width + channel;
    float y = total(stream, args.matrices[0]);
    if constexpr (kIsActivated) {
      y = Activated(args.activation, y);
      if constexpr (kIsGated) y = __fmul_rn(y, total(1, args.matrices[1]));
      static_cast<uint16_t*>(args.out)[at] = RoundToBfloat16(y);
    } else {
      static_cast<float*>(args.out)[at] = y;
    }
  }
}

// Grid: x row tiles, y channel tiles, z experts. Gated, the streams are the gate and up; else
// neighbouring channel tiles of one matrix.
template <typename Decoder, int kStreams, int kRowTiles, bool kIsGated, bool kIsActivated>
__global__ void __launch_bounds__(kThreads) Product(const __grid_constant__ ProductArgs args) {
  using M = Memory<Decoder, kStreams, kRowTiles>;
  extern __shared__ __align__(16) std::byte shared[];
  const ExpertSpan expert = args.experts[blockIdx.z];
  const uint32_t first_row = blockIdx.x * kRowTiles * kTileRows;
  if (first_row >= expert.count) return;
  const uint32_t first_channel = blockIdx.y * kTileChannels * (kIsGated ? 1 : kStreams);
  const uint32_t warp = threadIdx.x / 32;
  const uint32_t in_warp = threadIdx.x % 32;
  const Weights& shape = args.matrices[0];
  const uint32_t groups = (shape.in + kInt4Group - 1) / kInt4Group;
  std::byte* const tables = shared + M::kRingBytes;

  Lane<Decoder, kStreams, kRowTiles> lane;
  lane.ring = shared + threadIdx.x * 16;
  lane.row_bytes = shape.row_bytes;
  lane.quarter = in_warp % 4;
  lane.index_skip = shape.in / 8 * 8;
#pragma unroll
  for (int s = 0; s < kStreams; ++s) {
    const Weights& weights = args.matrices[kIsGated ? s : 0];
    const uint64_t tile = first_channel + (kIsGated ? 0 : s * kTileChannels);
    const uint64_t channel = tile + in_warp / 4;
    lane.row_skip[s] = uint64_t{8} * weights.row_bytes;
    lane.values[s] = expert.record + weights.values + channel * weights.row_bytes;
    lane.indices[s] = expert.record + weights.indices + channel * (weights.in / 8);
    if constexpr (M::kIsInt4) {
      // All scales and zero points of the tile's channels lie in one piece.
      const uint32_t bytes = M::GroupBytes(groups);
      std::byte* const to = tables + 2 * s * bytes;
      for (uint32_t i = threadIdx.x * 16; i < bytes; i += kThreads * 16) {
        const uint64_t from = tile * groups * sizeof(uint16_t) + i;
        CopyAsync<16>(to + i, expert.record + weights.scales + from, true);
        CopyAsync<16>(to + bytes + i, expert.record + weights.zeros + from, true);
      }
    }
  }
#pragma unroll
  for (int tile = 0; tile < kRowTiles; ++tile) {
    const uint32_t row = first_row + tile * kTileRows + in_warp / 4;
    lane.x[tile] = nullptr;
    if (row >= expert.count) continue;
    const uint64_t x_row = args.places[expert.first + row] / args.places_per_row;
    lane.x[tile] = args.x + x_row * shape.in;
  }

  const uint32_t num_chunks = (shape.row_bytes + kChunkBytes - 1) / kChunkBytes;
#pragma unroll
  for (int stage = 0; stage < M::kStages - 1; ++stage) {
    const uint32_t chunk = stage * kWarps + warp;
    if (chunk < num_chunks) lane.Copy(chunk, stage);
    CommitCopies();
  }
  if constexpr (M::kIsInt4) {
    WaitForCopies<M::kStages - 2>();
    __syncthreads();
  } else if constexpr (M::kIsSparse) {
    if (threadIdx.x < 32) {
      reinterpret_cast<uint32_t*>(tables)[threadIdx.x] = SparseDecoder::Selector(threadIdx.x);
    }
    __syncthreads();
  }
  MmaC sums[kStreams][kRowTiles] = {};
  int stage = 0;
  for (uint32_t chunk = warp; chunk < num_chunks; chunk += kWarps) {
    WaitForCopies<M::kStages - 2>();
    const uint32_t ahead = chunk + (M::kStages - 1) * kWarps;
    // The stage before this one is free: its operands have been read.
    if (ahead < num_chunks) lane.Copy(ahead, stage == 0 ? M::kStages - 1 : stage - 1);
    CommitCopies();
    Multiply(lane, stage, chunk, tables, groups, sums);
    stage = stage + 1 == M::kStages ? 0 : stage + 1;
  }
  WaitForCopies<0>();
  __syncthreads();
  Finish<Decoder, kStreams, kRowTiles, kIsGated, kIsActivated>(
      args, expert, first_channel, first_row, sums, reinterpret_cast<float*>(shared));
}

Weights WeightsOf(const EncodedMatrix& matrix) {
  return {.values = matrix.values,
          .indices = matrix.indices,
          .scales = matrix.scales,
          .zeros = matrix.zeros,
          .row_bytes = static_cast<uint32_t>(matrix.row_bytes),
          .in = matrix.in};
}

absl::Status StatusOf(cudaError_t error, absl::string_view what) {
  if (error == cudaSuccess) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(what, ": ", cudaGetErrorString(error)));
}

struct Launch {
  uint32_t out;
  uint32_t num_experts;
  uint32_t max_rows;
  cudaStream_t stream;
};

template <typename Decoder, int kStreams, int kRowTiles, bool kIsGated, bool kIsActivated>
absl::Status LaunchTiles(const ProductArgs& args, const Launch& launch) {
  const auto kernel = Product<Decoder, kStreams, kRowTiles, kIsGated, kIsActivated>;
  const size_t bytes = Memory<Decoder, kStreams, kRowTiles>::Bytes(args.matrices[0].in);
  const cudaError_t error = cudaFuncSetAttribute(
      kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  if (error != cudaSuccess) return StatusOf(error, "shared memory of an expert's product");
  const uint32_t rows = kRowTiles * kTileRows;
  const dim3 grid((launch.max_rows + rows - 1) / rows,
                  launch.out / (kTileChannels * (kIsGated ? 1 : kStreams)),
                  launch.num_experts);
  kernel<<<grid, kThreads, bytes, launch.stream>>>(args);
  return StatusOf(cudaGetLastError(), "launch of an expert's product");
}

template <typename Decoder, int kStreams, bool kIsGated, bool kIsActivated>
absl::Status LaunchProduct(const ProductArgs& args, const Launch& launch) {
  if (launch.max_rows <= kTileRows) {
    return LaunchTiles<Decoder, kStreams, 1, kIsGated, kIsActivated>(args, launch);
  }
  if (launch.max_rows <= 2 * kTileRows) {
    return LaunchTiles<Decoder, kStreams, 2, kIsGated, kIsActivated>(args, launch);
  }
  return LaunchTiles<Decoder, kStreams, kMaxRowTiles, kIsGated, kIsActivated>(args, launch);
}

template <typename Decoder>
absl::Status LaunchMlp(const CudaExpertMlpArgs& args, cudaStream_t stream) {
  const RecordLayout& layout = *args.layout;
  const bool is_gated = layout.gate.out != 0;
  ProductArgs product = {
      .matrices = {WeightsOf(is_gated ? layout.gate : layout.up), WeightsOf(layout.up)},
      .experts = args.experts,
      .places = args.places,
      .x = args.x,
      .out = args.inner,
      .out_width = layout.up.out,
      .places_per_row = args.num_chosen,
      .activation = args.activation};
  Launch launch = {.out = layout.up.out,
                   .num_experts = args.num_experts,
                   .max_rows = args.max_rows,
                   .stream = stream};
  absl::Status status = is_gated ? LaunchProduct<Decoder, 2, true, true>(product, launch)
                                 : LaunchProduct<Decoder, 1, false, true>(product, launch);
  if (!status.ok()) return status;
  product.matrices[0] = WeightsOf(layout.down);
  product.x = args.inner;
  product.out = args.out;
  product.out_width = layout.down.out;
  product.places_per_row = 1;
  launch.out = layout.down.out;
  return LaunchProduct<Decoder, 1, false, false>(product, launch);
}

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
  if (layout.up.in % 32 != 0 || layout.up.out % 32 != 0) {
    return absl::InvalidArgumentError(absl::StrCat("an expert of ",
                                                   layout.up.in,
                                                   " to ",
                                                   layout.up.out,
                                                   " numbers on a GPU: 32 must divide both"));
  }
  if (args.num_experts > 65535) {
    return absl::InvalidArgumentError(
        absl::StrCat(args.num_experts, " experts in a launch, the limit is 65535"));
  }
  if (args.num_experts == 0 || args.max_rows == 0) return absl::OkStatus();
  switch (layout.codec) {
    case Codec::kNone:
      if (layout.dtype != Dtype::kBfloat16) {
        return absl::InvalidArgumentError("experts on a GPU are bfloat16 or encoded, not float32");
      }
      return LaunchMlp<NoneDecoder>(args, stream);
    case Codec::kInt8:
      return LaunchMlp<Int8Decoder>(args, stream);
    case Codec::kInt4:
      return LaunchMlp<Int4Decoder>(args, stream);
    case Codec::kSparse:
      return LaunchMlp<SparseDecoder>(args, stream);
  }
  return absl::InternalError(absl::StrCat("unknown codec ", static_cast<int>(layout.codec)));
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
  return StatusOf(cudaGetLastError(), "launch of the sum of experts");
}

}  // namespace pregate
