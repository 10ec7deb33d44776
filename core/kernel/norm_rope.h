// Root mean square normalization (Zhang, Sennrich: arXiv 1910.07467) and rotary position embedding
// (Su et al.: arXiv 2104.09864).
#pragma once

#include <cstdint>

#include "core/kernel/cpu_kernels.h"

namespace pregate {

struct RmsNormArgs {
  const float* x = nullptr;       // [num_rows, width]
  const float* weight = nullptr;  // [width]
  float* out = nullptr;           // [num_rows, width]; may be x
  int64_t num_rows = 0;
  int64_t width = 0;
  float epsilon = 0;
};
// out = x / sqrt(mean(x²) + epsilon) · weight, row by row.
void RmsNorm(const CpuContext& cpu, const RmsNormArgs& args);

struct RopeArgs {
  float* x = nullptr;                   // [num_tokens, num_heads, head_dim], changed in place
  const uint32_t* positions = nullptr;  // [num_tokens]
  const float* cosines = nullptr;       // [max positions, head_dim / 2]
  const float* sines = nullptr;         // like cosines
  int64_t num_tokens = 0;
  int64_t num_heads = 0;
  int64_t head_dim = 0;  // even
};
// Rotates each pair (x[i], x[i + head_dim / 2]) by its position's i-th angle: Hugging Face's
// half-split form.
void Rope(const CpuContext& cpu, const RopeArgs& args);

// cosines and sines [num_positions, head_dim / 2] of the angles position / theta^(2i / head_dim).
void FillRopeTable(
    int64_t num_positions, int64_t head_dim, double theta, float* cosines, float* sines);

}  // namespace pregate
