// pregate-gpu-bench: how long the experts of a layer take on a device, beside what their bytes
// alone take at the bandwidth of a copy there.
//
// A measurement is a CUDA graph of as many layers as make several times the second-level cache of
// records, so that weights come from memory; a layer's experts are one launch. Rows are dealt out
// evenly to the experts of the layer.
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <iostream>
#include <random>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "core/base/check.h"
#include "core/kernel/expert_mlp_cuda.h"

namespace pregate {
namespace {

constexpr int kWarmUps = 3;
constexpr int kRuns = 15;
constexpr size_t kWorkingSet = size_t{768} << 20;  // bytes of records
constexpr size_t kMaxRecords = 1024;

struct Case {
  const char* name;
  ExpertShape shape;
  Activation activation;
  uint32_t num_chosen;
  uint32_t num_experts;  // of a layer
};

// docs/benchmarks.md, "CUDA kernels".
constexpr Case kCases[] = {
    {"S", {512, 2048, false, Dtype::kBfloat16}, Activation::kRelu, 1, 8},
    {"Q", {2048, 768, true, Dtype::kBfloat16}, Activation::kSilu, 8, 128},
    {"G", {2880, 2880, true, Dtype::kBfloat16}, Activation::kSilu, 4, 32},
    {"M", {4096, 14336, true, Dtype::kBfloat16}, Activation::kSilu, 2, 8},
};

void CheckCuda(cudaError_t error) {
  PREGATE_CHECK(error == cudaSuccess, "CUDA: ", cudaGetErrorString(error));
}

// Device memory until the program ends.
template <typename T>
T* Allocate(size_t count) {
  void* data = nullptr;
  CheckCuda(cudaMalloc(&data, count * sizeof(T)));
  return static_cast<T*>(data);
}

template <typename T>
T* Upload(const std::vector<T>& values) {
  T* const data = Allocate<T>(values.size());
  CheckCuda(cudaMemcpy(data, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
  return data;
}

struct Spread {
  double median;
  double least;
  double most;
};

// Microseconds of what `enqueue` puts on a stream, as one graph.
Spread MeasureMicroseconds(const std::function<void(cudaStream_t)>& enqueue) {
  cudaStream_t stream;
  CheckCuda(cudaStreamCreate(&stream));
  CheckCuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  enqueue(stream);
  cudaGraph_t graph;
  CheckCuda(cudaStreamEndCapture(stream, &graph));
  cudaGraphExec_t program;
  CheckCuda(cudaGraphInstantiate(&program, graph, 0));
  cudaEvent_t begin;
  cudaEvent_t end;
  CheckCuda(cudaEventCreate(&begin));
  CheckCuda(cudaEventCreate(&end));
  std::vector<double> times;
  for (int run = 0; run < kWarmUps + kRuns; ++run) {
    CheckCuda(cudaEventRecord(begin, stream));
    CheckCuda(cudaGraphLaunch(program, stream));
    CheckCuda(cudaEventRecord(end, stream));
    CheckCuda(cudaEventSynchronize(end));
    float milliseconds = 0;
    CheckCuda(cudaEventElapsedTime(&milliseconds, begin, end));
    if (run >= kWarmUps) times.push_back(milliseconds * 1000.0);
  }
  CheckCuda(cudaGetLastError());
  CheckCuda(cudaGraphExecDestroy(program));
  CheckCuda(cudaGraphDestroy(graph));
  CheckCuda(cudaEventDestroy(begin));
  CheckCuda(cudaEventDestroy(end));
  CheckCuda(cudaStreamDestroy(stream));
  std::sort(times.begin(), times.end());
  return {.median = times[times.size() / 2], .least = times.front(), .most = times.back()};
}

// Bytes read and written per second by a copy within the device, in GB/s.
double CopyBandwidth() {
  constexpr size_t kBytes = size_t{2} << 30;
  auto* const from = Allocate<std::byte>(kBytes);
  auto* const to = Allocate<std::byte>(kBytes);
  CheckCuda(cudaMemset(from, 0x5a, kBytes));
  const Spread time = MeasureMicroseconds([&](cudaStream_t stream) {
    CheckCuda(cudaMemcpyAsync(to, from, kBytes, cudaMemcpyDeviceToDevice, stream));
  });
  CheckCuda(cudaFree(from));
  CheckCuda(cudaFree(to));
  return 2.0 * kBytes / time.median / 1000;
}

// Records of random weights: one is encoded, and lies in the slab many times.
std::byte* MakeRecords(const RecordLayout& layout, size_t count) {
  std::mt19937 random(5);
  std::uniform_real_distribution<float> uniform(-0.05f, 0.05f);
  std::vector<std::byte> record(layout.bytes);
  for (const EncodedMatrix* matrix : {&layout.up, &layout.gate, &layout.down}) {
    std::vector<float> weights(size_t{matrix->out} * matrix->in);
    for (float& weight : weights) weight = uniform(random);
    if (!weights.empty()) EncodeMatrix(layout, *matrix, weights.data(), absl::MakeSpan(record));
  }
  auto* const slab = Allocate<std::byte>(layout.bytes * count);
  CheckCuda(cudaMemcpy(slab, record.data(), layout.bytes, cudaMemcpyHostToDevice));
  for (size_t i = 1; i < count; ++i) {
    CheckCuda(cudaMemcpy(slab + i * layout.bytes, slab, layout.bytes, cudaMemcpyDeviceToDevice));
  }
  return slab;
}

// A slab of records and room for the largest step.
struct Bench {
  Case shape;
  RecordLayout layout;
  std::byte* slab;
  size_t num_records;
  double bandwidth;  // GB/s
};

// A step of `num_tokens`: each layer runs as many experts as the tokens choose, at most all.
void MeasureStep(const Bench& bench, uint32_t num_tokens) {
  const uint32_t num_places = num_tokens * bench.shape.num_chosen;
  const uint32_t experts = std::min(num_places, bench.shape.num_experts);
  const size_t layers = std::max<size_t>(1, bench.num_records / experts);
  std::vector<ExpertSpan> spans;
  uint32_t max_rows = 0;
  for (size_t layer = 0; layer < layers; ++layer) {
    for (uint32_t e = 0; e < experts; ++e) {
      const uint32_t first = num_places * e / experts;
      const uint32_t count = num_places * (e + 1) / experts - first;
      const size_t record = (layer * experts + e) % bench.num_records;
      spans.push_back({bench.slab + record * bench.layout.bytes, first, count});
      max_rows = std::max(max_rows, count);
    }
  }
  // Expert e has the places p with p mod experts = e, as a token's choices differ.
  std::vector<uint32_t> places;
  for (uint32_t e = 0; e < experts; ++e) {
    for (uint32_t p = e; p < num_places; p += experts) places.push_back(p);
  }
  std::mt19937 random(6);
  std::vector<uint16_t> x(size_t{num_tokens} * bench.layout.up.in);
  for (uint16_t& value : x) value = static_cast<uint16_t>(0x3f00 + random() % 256);
  const ExpertSpan* const device_spans = Upload(spans);
  CudaExpertMlpArgs args = {.layout = &bench.layout,
                            .activation = bench.shape.activation,
                            .places = Upload(places),
                            .x = Upload(x),
                            .inner = Allocate<uint16_t>(size_t{num_places} * bench.layout.up.out),
                            .out = Allocate<float>(size_t{num_places} * bench.layout.down.out),
                            .num_experts = experts,
                            .num_chosen = bench.shape.num_chosen,
                            .max_rows = max_rows};
  const Spread time = MeasureMicroseconds([&](cudaStream_t stream) {
    for (size_t layer = 0; layer < layers; ++layer) {
      args.experts = device_spans + layer * experts;
      const absl::Status status = ExpertMlp(args, stream);
      PREGATE_CHECK(status.ok(), status.ToString());
    }
  });
  const double bytes = static_cast<double>(experts) * bench.layout.bytes;
  const double layer = time.median / layers;
  const double bound = bytes / bench.bandwidth / 1000;
  const double flops = 2.0 * num_places * bench.layout.up.in * bench.layout.up.out *
                       (bench.layout.gate.out != 0 ? 3 : 2);
  std::cout << absl::StreamFormat(
      "| %s | %s | %d | %d | %d | %.1f | %.1f (%.1f..%.1f) | %.0f | %.2f | %.1f |\n",
      bench.shape.name,
      CodecName(bench.layout.codec),
      num_tokens,
      experts,
      max_rows,
      bound,
      layer,
      time.least / layers,
      time.most / layers,
      bytes / layer / 1000,
      bound / layer,
      flops / layer / 1e6);
  std::cout.flush();
  CheckCuda(cudaFree(const_cast<ExpertSpan*>(device_spans)));
  CheckCuda(cudaFree(const_cast<uint32_t*>(args.places)));
  CheckCuda(cudaFree(const_cast<uint16_t*>(args.x)));
  CheckCuda(cudaFree(args.inner));
  CheckCuda(cudaFree(args.out));
}

void Main(const std::vector<uint32_t>& steps) {
  cudaDeviceProp device;
  CheckCuda(cudaGetDeviceProperties(&device, 0));
  const double bandwidth = CopyBandwidth();
  std::cout << absl::StreamFormat("%s, %d multiprocessors, L2 %d MiB, a copy moves %.0f GB/s\n\n",
                                  device.name,
                                  device.multiProcessorCount,
                                  device.l2CacheSize >> 20,
                                  bandwidth);
  std::cout << "| shape | codec | tokens | experts | rows | from bytes, µs | measured, µs | GB/s | "
               "of a copy | TFLOP/s |\n|---|---|---:|---:|---:|---:|---:|---:|---:|---:|\n";
  for (const Case& shape : kCases) {
    for (const Codec codec : {Codec::kNone, Codec::kInt8, Codec::kInt4, Codec::kSparse}) {
      const RecordLayout layout = LayOutRecord(codec, shape.shape).value();
      const size_t count =
          std::clamp<size_t>(kWorkingSet / layout.bytes, shape.num_experts, kMaxRecords);
      std::byte* const slab = MakeRecords(layout, count);
      for (const uint32_t num_tokens : steps) {
        MeasureStep({shape, layout, slab, count, bandwidth}, num_tokens);
      }
      CheckCuda(cudaFree(slab));
    }
  }
}

}  // namespace
}  // namespace pregate

// The steps' numbers of tokens may be given.
int main(int argc, char** argv) {
  std::vector<uint32_t> steps;
  for (int i = 1; i < argc; ++i) {
    uint32_t tokens = 0;
    if (!absl::SimpleAtoi(argv[i], &tokens) || tokens == 0) {
      std::cerr << "usage: pregate-gpu-bench [TOKENS…]\n";
      return 2;
    }
    steps.push_back(tokens);
  }
  if (steps.empty()) steps = {1, 8, 32, 1024};
  pregate::Main(steps);
  return 0;
}
