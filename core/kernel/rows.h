// Moving rows of numbers: gathering, adding, changing their dtype, looking for what is no number.
#pragma once

#include <cstdint>

#include "core/base/options.h"
#include "core/kernel/cpu_kernels.h"

namespace pregate {

struct GatherArgs {
  const void* table = nullptr;  // [any, width]
  Dtype dtype = Dtype::kFloat32;
  const uint32_t* rows = nullptr;  // [num_rows]
  float* out = nullptr;            // [num_rows, width]
  int64_t num_rows = 0;
  int64_t width = 0;
};
// out[i] = table[rows[i]].
void Gather(const CpuContext& cpu, const GatherArgs& args);

// sum[i] += x[i].
void Add(const CpuContext& cpu, const float* x, float* sum, int64_t count);

// To the nearest, ties to even.
void ToBfloat16(const CpuContext& cpu, const float* x, uint16_t* out, int64_t count);
void FromBfloat16(const CpuContext& cpu, const uint16_t* x, float* out, int64_t count);

// False when one of the numbers is infinite or none at all.
bool AllFinite(const CpuContext& cpu, const void* x, Dtype dtype, int64_t count);

}  // namespace pregate
