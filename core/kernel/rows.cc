#include "core/kernel/rows.h"

#include <atomic>

#include "core/kernel/grain.h"

namespace pregate {

void Gather(const CpuContext& cpu, const GatherArgs& args) {
  cpu.parallel_for(args.num_rows, GrainFor(args.width), [&](int64_t begin, int64_t end) {
    cpu.kernels->gather(args, begin, end);
  });
}

void Add(const CpuContext& cpu, const float* x, float* sum, int64_t count) {
  cpu.parallel_for(count, GrainFor(1), [&](int64_t begin, int64_t end) {
    cpu.kernels->add(x, sum, begin, end);
  });
}

void ToBfloat16(const CpuContext& cpu, const float* x, uint16_t* out, int64_t count) {
  cpu.parallel_for(count, GrainFor(1), [&](int64_t begin, int64_t end) {
    cpu.kernels->to_bfloat16(x, out, begin, end);
  });
}

void FromBfloat16(const CpuContext& cpu, const uint16_t* x, float* out, int64_t count) {
  cpu.parallel_for(count, GrainFor(1), [&](int64_t begin, int64_t end) {
    cpu.kernels->from_bfloat16(x, out, begin, end);
  });
}

bool AllFinite(const CpuContext& cpu, const void* x, Dtype dtype, int64_t count) {
  const bool is_bfloat16 = dtype == Dtype::kBfloat16;
  const int64_t size = is_bfloat16 ? 2 : 4;
  std::atomic<bool> finite{true};
  cpu.parallel_for(count, GrainFor(1), [&](int64_t begin, int64_t end) {
    const auto* first = static_cast<const char*>(x) + begin * size;
    if (!cpu.kernels->all_finite(first, is_bfloat16, end - begin)) finite = false;
  });
  return finite;
}

}  // namespace pregate
