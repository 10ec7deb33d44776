#include "core/model/torch_cpu.h"

#include <algorithm>
#include <cstdlib>
#include <thread>

#include "core/model/aten.h"

namespace pregate {
namespace {

struct IsaVariables {
  const char* aten;    // ATEN_CPU_CAPABILITY
  const char* onednn;  // ONEDNN_MAX_CPU_ISA
  const char* mkl;     // MKL_ENABLE_INSTRUCTIONS
};

IsaVariables VariablesOf(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kBaseline:
      return {"default", "SSE41", "SSE4_2"};
    case CpuIsa::kAvx2:
      return {"avx2", "AVX2", "AVX2"};
    case CpuIsa::kAvx512:
      break;
  }
  return {nullptr, nullptr, nullptr};  // all that they find themselves
}

}  // namespace

void LimitLibTorch(CpuIsa isa) {
  const IsaVariables variables = VariablesOf(isa);
  if (variables.aten == nullptr) return;
  constexpr int kKeep = 0;
  setenv("ATEN_CPU_CAPABILITY", variables.aten, kKeep);
  setenv("ONEDNN_MAX_CPU_ISA", variables.onednn, kKeep);
  setenv("MKL_ENABLE_INSTRUCTIONS", variables.mkl, kKeep);
}

uint32_t ChooseThreads(uint32_t flag, uint64_t bytes_per_token) {
  if (flag > 0) return flag;
  // Below this a thread's share of a product takes less time than waiting for the other threads.
  constexpr uint64_t kMinBytesPerThread = 8 << 20;
  const uint64_t useful = std::max<uint64_t>(1, bytes_per_token / kMinBytesPerThread);
  return static_cast<uint32_t>(
      std::min<uint64_t>(useful, std::max(1u, std::thread::hardware_concurrency())));
}

void UseThreads(uint32_t num_threads) {
  if (at::get_num_threads() != static_cast<int>(num_threads)) {
    at::set_num_threads(static_cast<int>(num_threads));
  }
}

ParallelFor LibTorchParallelFor() {
  return [](int64_t count, int64_t grain, absl::FunctionRef<void(int64_t, int64_t)> body) {
    at::parallel_for(0, count, grain, [&](int64_t begin, int64_t end) { body(begin, end); });
  };
}

}  // namespace pregate
