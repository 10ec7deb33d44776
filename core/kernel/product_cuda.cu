// Weights are the tensor cores' first operand: 16 output channels a tile, and as many rows of
// activations as second operands of 8. The order of the inputs within a product is free as long as
// both operands have the same, so that a lane takes 16 consecutive bytes of a weight row as they
// lie in the record, and the activations of just these inputs.
//
// The four warps of a block take the chunks of a row (64 bytes of values) in turn and add up their
// sums in the end, in order. That, and the order within a chunk, is the one order of every sum; how
// many channels and rows a block has is free.
#include <algorithm>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "core/kernel/codec_format.h"
#include "core/kernel/cuda_status.h"
#include "core/kernel/decoder_cuda.h"
#include "core/kernel/mma_cuda.h"
#include "core/kernel/product_cuda.h"

namespace pregate {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * 32;
constexpr int kChunkBytes = 64;  // of a weight row: 16 for each of a quad's lanes
constexpr int kTileChannels = 16;
constexpr int kTileRows = 8;

// What a product's numbers go through.
enum class Phase {
  kUp,       // activation(matrix · x)
  kGatedUp,  // activation(gate · x) · (matrix · x)
  kDown,     // nothing
};

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
  Weights matrices[2];  // the gate and the matrix, or the matrix
  const ExpertSpan* spans;
  ExpertSpan span;  // without spans
  const uint32_t* places;
  const uint16_t* x;  // [rows, in]
  void* out;          // [places, out]: bfloat16 of the activated, else float32
  uint32_t out_width;
  uint32_t places_per_row;  // of x
  Activation activation;
  bool adds;

  bool has_spans;   // in few_spans
  bool has_places;  // in few_places
  ExpertSpan few_spans[kFewSpans];
  uint32_t few_places[kFewPlaces];

  __device__ ExpertSpan Span(uint32_t index) const {
    if (has_spans) return few_spans[index];
    return spans == nullptr ? span : spans[index];
  }
  __device__ uint64_t Place(const ExpertSpan& own, uint32_t row) const {
    if (has_places) return few_places[own.first + row];
    return places == nullptr ? own.first + row : places[own.first + row];
  }
};

// The shared memory of a block: a ring of stages for every warp, so that a warp waits for its own
// copies alone; then what Int4 and Sparse look up. Sums of the warps take the ring's place in the
// end. In a stage each item is 16 bytes for each thread of the block, the weights' items first.
template <typename Decoder, int kStreams, int kRowTiles>
struct Memory {
  static constexpr bool kIsSparse = Decoder::kCodec == Codec::kSparse;
  static constexpr bool kIsInt4 = Decoder::kCodec == Codec::kInt4;
  static constexpr int kValues = 2 * kStreams;  // of 16 bytes a lane
  static constexpr int kActivations = kRowTiles * Decoder::kInputs / 8;
  static constexpr int kPlaces = kIsSparse ? kValues : 0;  // of 4 bytes
  static constexpr int kStageBytes = kThreads * ((kValues + kActivations) * 16 + kPlaces * 4);
  // What was fastest on an H100: encoded weights want more blocks, others more bytes on their way.
  // Two stages are the least.
  static constexpr int kBudget = (Decoder::kCodec == Codec::kNone ? 96 : 48) * 1024;
  static constexpr int kStages =
      std::clamp(kBudget / kStageBytes, kStageBytes > 24 * 1024 ? 2 : 3, 8);
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
  static constexpr int kNumStreams = kStreams;
  static constexpr int kItems = Decoder::kInputs / 8;  // of 16 bytes of activations a chunk

  const std::byte* values[kStreams];
  const std::byte* indices[kStreams];
  const uint16_t* x[kRowTiles];  // null: no such row
  std::byte* ring;
  uint64_t row_skip;  // from a lane's upper weight row to its lower one, 8 further
  uint32_t index_skip;
  uint32_t row_bytes;
  uint32_t quarter;  // lane % 4

  __device__ std::byte* Stage(int stage) const { return ring + stage * M::kStageBytes; }

  __device__ void CopyWeights(uint32_t chunk, int stage) const {
    const uint32_t at = chunk * kChunkBytes + quarter * 16;
    const bool is_inside = at < row_bytes;
    std::byte* to = Stage(stage);
#pragma unroll
    for (int s = 0; s < kStreams; ++s) {
      CopyAsync<16>(to, values[s] + at, is_inside);
      CopyAsync<16>(to + kThreads * 16, values[s] + row_skip + at, is_inside);
      to += 2 * kThreads * 16;
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

  // Four lanes share a row. Each time they copy 64 bytes that lie together, to where those of them
  // read that need them.
  __device__ void CopyRows(uint32_t chunk, int stage) const {
    std::byte* const first = Stage(stage) + M::kValues * kThreads * 16 - quarter * 16;
#pragma unroll
    for (int tile = 0; tile < kRowTiles; ++tile) {
      if (x[tile] == nullptr) continue;
#pragma unroll
      for (int i = 0; i < kItems; ++i) {
        const uint32_t piece = i * 4 + quarter;
        const uint32_t reader = piece / kItems;
        const bool is_inside = chunk * kChunkBytes + reader * 16 < row_bytes;
        CopyAsync<16>(first + (tile * kItems + piece % kItems) * kThreads * 16 + reader * 16,
                      x[tile] + chunk * 4 * Decoder::kInputs + piece * 8,
                      is_inside);
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
      const int item = M::kValues + tile * lane.kItems + i / 2;
      x[tile] = {0, 0, 0, 0};
      if (lane.x[tile] != nullptr) {
        x[tile] = *reinterpret_cast<const uint4*>(from + item * kThreads * 16);
      }
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
template <typename Decoder, Phase kPhase, int kStreams, int kRowTiles>
__device__ void Finish(const ProductArgs& args,
                       const ExpertSpan& span,
                       uint32_t first_channel,
                       uint32_t first_row,
                       const MmaC (&sums)[kStreams][kRowTiles],
                       float* shared) {
  using M = Memory<Decoder, kStreams, kRowTiles>;
  constexpr int kMatrices = kPhase == Phase::kGatedUp ? 2 : 1;
  constexpr int kRows = kRowTiles * kTileRows;
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
  for (uint32_t i = threadIdx.x; i < kStreams / kMatrices * kRows * kTileChannels; i += kThreads) {
    const uint32_t tile = i / (kRows * kTileChannels);
    const uint32_t row = i / kTileChannels % kRows;
    const uint32_t tile_channel = i % kTileChannels;
    if (first_row + row >= span.count) continue;
    const uint32_t channel = first_channel + tile * kTileChannels + tile_channel;
    const auto total = [&](int matrix) {
      const uint32_t stream = tile * kMatrices + matrix;
      const float* at = shared + (stream * kRows + row) * M::kSumStride + tile_channel;
      float sum = at[0];
      for (int warp = 1; warp < kWarps; ++warp) sum += at[warp * M::kSums];
      if constexpr (Decoder::kCodec == Codec::kInt8 || Decoder::kCodec == Codec::kSparse) {
        const std::byte* scales = span.record + args.matrices[matrix].scales;
        sum = __fmul_rn(sum, reinterpret_cast<const float*>(scales)[channel]);
      }
      return sum;
    };
    const uint64_t place = args.Place(span, first_row + row);
    const uint64_t at = place * args.out_width + channel;
    if constexpr (kPhase == Phase::kDown) {
      float& y = static_cast<float*>(args.out)[at];
      y = args.adds ? __fadd_rn(y, total(0)) : total(0);
    } else {
      float y = Activated(args.activation, total(0));
      if constexpr (kPhase == Phase::kGatedUp) y = __fmul_rn(y, total(1));
      static_cast<uint16_t*>(args.out)[at] = RoundToBfloat16(y);
    }
  }
}

// Where the lane's weights are. Stream s is tile s / kMatrices of matrix s % kMatrices.
template <int kMatrices, typename Lane>
__device__ void FindWeights(const ProductArgs& args,
                            const std::byte* record,
                            uint32_t first_channel,
                            Lane& lane) {
  const uint32_t in_warp = threadIdx.x % 32;
  const Weights& shape = args.matrices[0];
  lane.quarter = in_warp % 4;
  lane.row_bytes = shape.row_bytes;
  lane.row_skip = uint64_t{8} * shape.row_bytes;
  lane.index_skip = shape.in / 8 * 8;
#pragma unroll
  for (int s = 0; s < Lane::kNumStreams; ++s) {
    const Weights& weights = args.matrices[s % kMatrices];
    const uint64_t channel = first_channel + s / kMatrices * kTileChannels + in_warp / 4;
    lane.values[s] = record + weights.values + channel * weights.row_bytes;
    lane.indices[s] = record + weights.indices + channel * (weights.in / 8);
  }
}

// Fills what the decoder looks up; copies of it belong to the next group.
template <int kMatrices, typename M>
__device__ void FillTables(const ProductArgs& args,
                           const std::byte* record,
                           uint32_t first_channel,
                           uint32_t groups,
                           std::byte* tables) {
  if constexpr (M::kIsInt4) {
    // All scales and zero points of a tile's channels lie in one piece.
    const uint32_t bytes = M::GroupBytes(groups);
#pragma unroll
    for (int s = 0; s < M::kValues / 2; ++s) {
      const Weights& weights = args.matrices[s % kMatrices];
      const uint64_t channel = first_channel + s / kMatrices * kTileChannels;
      std::byte* const to = tables + 2 * s * bytes;
      for (uint32_t i = threadIdx.x * 16; i < bytes; i += kThreads * 16) {
        const uint64_t from = channel * groups * sizeof(uint16_t) + i;
        CopyAsync<16>(to + i, record + weights.scales + from, true);
        CopyAsync<16>(to + bytes + i, record + weights.zeros + from, true);
      }
    }
  } else if constexpr (M::kIsSparse) {
    if (threadIdx.x < 32) {
      reinterpret_cast<uint32_t*>(tables)[threadIdx.x] = SparseDecoder::Selector(threadIdx.x);
    }
  }
}

// Grid: x row tiles, y channel tiles, z spans.
template <typename Decoder, Phase kPhase, int kTiles, int kRowTiles>
__global__ void __launch_bounds__(kThreads) Product(const __grid_constant__ ProductArgs args) {
  constexpr int kMatrices = kPhase == Phase::kGatedUp ? 2 : 1;
  constexpr int kStreams = kTiles * kMatrices;
  using M = Memory<Decoder, kStreams, kRowTiles>;
  extern __shared__ __align__(16) std::byte shared[];
  if constexpr (kPhase != Phase::kDown) LetNextGridStart();
  const ExpertSpan span = args.Span(blockIdx.z);
  const uint32_t first_row = blockIdx.x * kRowTiles * kTileRows;
  if (first_row >= span.count) return;
  const uint32_t first_channel = blockIdx.y * kTileChannels * kTiles;
  const uint32_t warp = threadIdx.x / 32;
  const uint32_t in = args.matrices[0].in;
  const uint32_t groups = (in + kInt4Group - 1) / kInt4Group;
  std::byte* const tables = shared + M::kRingBytes;

  Lane<Decoder, kStreams, kRowTiles> lane;
  lane.ring = shared + threadIdx.x * 16;
  FindWeights<kMatrices>(args, span.record, first_channel, lane);
  FillTables<kMatrices, M>(args, span.record, first_channel, groups, tables);
  const uint32_t num_chunks = (lane.row_bytes + kChunkBytes - 1) / kChunkBytes;
#pragma unroll
  for (int stage = 0; stage < M::kStages - 1; ++stage) {
    const uint32_t chunk = stage * kWarps + warp;
    if (chunk < num_chunks) lane.CopyWeights(chunk, stage);
  }
#pragma unroll
  for (int tile = 0; tile < kRowTiles; ++tile) {
    const uint32_t row = first_row + tile * kTileRows + threadIdx.x % 32 / 4;
    lane.x[tile] = nullptr;
    if (row >= span.count) continue;
    const uint64_t x_row = args.Place(span, row) / args.places_per_row;
    lane.x[tile] = args.x + x_row * in;
  }
  // Weights are there since before the first product was launched, its results are not.
  if constexpr (kPhase == Phase::kDown) WaitForLastGrid();
#pragma unroll
  for (int stage = 0; stage < M::kStages - 1; ++stage) {
    const uint32_t chunk = stage * kWarps + warp;
    if (chunk < num_chunks) lane.CopyRows(chunk, stage);
    CommitCopies();
  }
  if constexpr (M::kIsInt4) WaitForCopies<M::kStages - 2>();
  if constexpr (M::kIsInt4 || M::kIsSparse) __syncthreads();

  MmaC sums[kStreams][kRowTiles] = {};
  int stage = 0;
  for (uint32_t chunk = warp; chunk < num_chunks; chunk += kWarps) {
    WaitForCopies<M::kStages - 2>();
    __syncwarp();
    // The stage before this one is free: all lanes have read it.
    const uint32_t ahead = chunk + (M::kStages - 1) * kWarps;
    const int free_stage = stage == 0 ? M::kStages - 1 : stage - 1;
    if (ahead < num_chunks) {
      lane.CopyWeights(ahead, free_stage);
      lane.CopyRows(ahead, free_stage);
    }
    CommitCopies();
    Multiply(lane, stage, chunk, tables, groups, sums);
    stage = stage + 1 == M::kStages ? 0 : stage + 1;
  }
  WaitForCopies<0>();
  __syncthreads();
  Finish<Decoder, kPhase>(
      args, span, first_channel, first_row, sums, reinterpret_cast<float*>(shared));
}

Weights WeightsOf(const EncodedMatrix& matrix) {
  return {.values = matrix.values,
          .indices = matrix.indices,
          .scales = matrix.scales,
          .zeros = matrix.zeros,
          .row_bytes = static_cast<uint32_t>(matrix.row_bytes),
          .in = matrix.in};
}

struct Device {
  uint32_t multiprocessors = 0;
  size_t shared_bytes = 0;       // that a block may have
  bool can_start_early = false;  // since compute capability 9.0
};

struct Launch {
  uint32_t num_spans = 0;
  uint32_t max_rows = 0;
  cudaStream_t stream = nullptr;
  bool starts_early = false;  // while the launch before it runs
  Device device;
};

template <typename Decoder, Phase kPhase, int kTiles, int kRowTiles>
absl::Status LaunchTiles(const ProductArgs& args, const Launch& launch) {
  constexpr int kStreams = kTiles * (kPhase == Phase::kGatedUp ? 2 : 1);
  const auto kernel = Product<Decoder, kPhase, kTiles, kRowTiles>;
  cudaLaunchConfig_t config = {};
  const uint32_t rows = kRowTiles * kTileRows;
  config.gridDim = dim3((launch.max_rows + rows - 1) / rows,
                        args.out_width / (kTileChannels * kTiles),
                        launch.num_spans);
  config.blockDim = kThreads;
  config.dynamicSmemBytes = Memory<Decoder, kStreams, kRowTiles>::Bytes(args.matrices[0].in);
  config.stream = launch.stream;
  cudaLaunchAttribute early = {};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  config.attrs = &early;
  config.numAttrs = launch.starts_early ? 1 : 0;
  // The most that any launch may have, once: the call costs as much as a launch.
  static const cudaError_t error =
      cudaFuncSetAttribute(kernel,
                           cudaFuncAttributeMaxDynamicSharedMemorySize,
                           static_cast<int>(launch.device.shared_bytes));
  if (error != cudaSuccess) return CudaStatus(error, "shared memory of a product");
  return CudaStatus(cudaLaunchKernelEx(&config, kernel, args), "launch of a product");
}

// Whether blocks of kTiles channel tiles divide the outputs, are as many as multiprocessors, and
// get their shared memory.
template <typename Decoder, Phase kPhase, int kTiles, int kRowTiles>
bool CanLaunch(const ProductArgs& args, const Launch& launch) {
  constexpr int kStreams = kTiles * (kPhase == Phase::kGatedUp ? 2 : 1);
  const uint32_t blocks = args.out_width / (kTiles * kTileChannels);
  return args.out_width % (kTiles * kTileChannels) == 0 &&
         blocks * launch.num_spans >= launch.device.multiprocessors &&
         Memory<Decoder, kStreams, kRowTiles>::Bytes(args.matrices[0].in) <=
             launch.device.shared_bytes;
}

template <typename Decoder, Phase kPhase>
absl::Status LaunchProduct(const ProductArgs& args, const Launch& launch) {
  // A block of more channels copies its rows for more weights.
  constexpr int kMatrices = kPhase == Phase::kGatedUp ? 2 : 1;
  constexpr int kWide = Decoder::kCodec == Codec::kNone ? 2 : 4 / kMatrices;
  if (launch.max_rows <= kTileRows) {
    return CanLaunch<Decoder, kPhase, kWide, 1>(args, launch)
               ? LaunchTiles<Decoder, kPhase, kWide, 1>(args, launch)
               : LaunchTiles<Decoder, kPhase, 1, 1>(args, launch);
  }
  // Prompts. Blocks of encoded weights have no registers for more rows.
  if (Decoder::kCodec == Codec::kNone && launch.max_rows > 2 * kTileRows) {
    return LaunchTiles<NoneDecoder, kPhase, 2 / kMatrices, 4>(args, launch);
  }
  return CanLaunch<Decoder, kPhase, kWide, 2>(args, launch)
             ? LaunchTiles<Decoder, kPhase, kWide, 2>(args, launch)
             : LaunchTiles<Decoder, kPhase, 1, 2>(args, launch);
}

absl::StatusOr<Device> AskDevice() {
  int device = 0;
  int major = 0;
  int multiprocessors = 0;
  int shared_bytes = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  }
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  }
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  }
  if (error != cudaSuccess) return CudaStatus(error, "the device of a product");
  return Device{.multiprocessors = static_cast<uint32_t>(multiprocessors),
                .shared_bytes = static_cast<size_t>(shared_bytes),
                .can_start_early = major >= 9};
}

// Lets spans and places travel with the launch, if they are few.
void TakeFew(const CudaProductArgs& args, ProductArgs& product) {
  if (args.host_spans == nullptr) return;
  if (args.num_spans <= kFewSpans) {
    std::copy_n(args.host_spans, args.num_spans, product.few_spans);
    product.has_spans = true;
  }
  uint32_t num_places = 0;
  for (const ExpertSpan& span : absl::MakeConstSpan(args.host_spans, args.num_spans)) {
    num_places = std::max(num_places, span.first + span.count);
  }
  if (args.host_places == nullptr || num_places > kFewPlaces) return;
  std::copy_n(args.host_places, num_places, product.few_places);
  product.has_places = true;
}

template <typename Decoder>
absl::Status LaunchAny(const ProductArgs& args, const CudaProductArgs& what, const Launch& launch) {
  if (what.output != ProductOutput::kActivated) {
    return LaunchProduct<Decoder, Phase::kDown>(args, launch);
  }
  return what.gate != nullptr ? LaunchProduct<Decoder, Phase::kGatedUp>(args, launch)
                              : LaunchProduct<Decoder, Phase::kUp>(args, launch);
}

}  // namespace

absl::Status EncodedProduct(const CudaProductArgs& args, cudaStream_t stream) {
  const EncodedMatrix& matrix = *args.matrix;
  if (matrix.in % 32 != 0 || matrix.out % kTileChannels != 0) {
    return absl::InvalidArgumentError(absl::StrCat("a matrix of ",
                                                   matrix.in,
                                                   " to ",
                                                   matrix.out,
                                                   " numbers on a GPU: 32 must divide the first, ",
                                                   kTileChannels,
                                                   " the second"));
  }
  if (args.num_spans > 65535) {
    return absl::InvalidArgumentError(
        absl::StrCat(args.num_spans, " experts in a launch, the limit is 65535"));
  }
  if (args.num_spans == 0 || args.max_rows == 0) return absl::OkStatus();
  static const absl::StatusOr<Device> device = AskDevice();
  if (!device.ok()) return device.status();
  const Launch launch = {.num_spans = args.num_spans,
                         .max_rows = args.max_rows,
                         .stream = stream,
                         .starts_early = args.follows_product && device->can_start_early,
                         .device = *device};
  ProductArgs product = {
      .matrices = {WeightsOf(args.gate != nullptr ? *args.gate : matrix), WeightsOf(matrix)},
      .spans = args.spans,
      .span = args.span,
      .places = args.places,
      .x = args.x,
      .out = args.out,
      .out_width = matrix.out,
      .places_per_row = args.places_per_row,
      .activation = args.activation,
      .adds = args.output == ProductOutput::kAdded,
      .has_spans = false,
      .has_places = false,
      .few_spans = {},
      .few_places = {}};
  TakeFew(args, product);
  switch (args.codec) {
    case Codec::kNone:
      return LaunchAny<NoneDecoder>(product, args, launch);
    case Codec::kInt8:
      return LaunchAny<Int8Decoder>(product, args, launch);
    case Codec::kInt4:
      return LaunchAny<Int4Decoder>(product, args, launch);
    case Codec::kSparse:
      return LaunchAny<SparseDecoder>(product, args, launch);
  }
  return absl::InternalError(absl::StrCat("unknown codec ", static_cast<int>(args.codec)));
}

}  // namespace pregate
