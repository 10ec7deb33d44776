#include "core/kernel/norm_rope.h"

#include <cmath>

#include "core/kernel/grain.h"

namespace pregate {

void RmsNorm(const CpuContext& cpu, const RmsNormArgs& args) {
  cpu.parallel_for(args.num_rows, GrainFor(2 * args.width), [&](int64_t begin, int64_t end) {
    cpu.kernels->rms_norm(args, begin, end);
  });
}

void Rope(const CpuContext& cpu, const RopeArgs& args) {
  const int64_t operations = 3 * args.num_heads * args.head_dim;
  cpu.parallel_for(args.num_tokens, GrainFor(operations), [&](int64_t begin, int64_t end) {
    cpu.kernels->rope(args, begin, end);
  });
}

void FillRopeTable(
    int64_t num_positions, int64_t head_dim, double theta, float* cosines, float* sines) {
  const int64_t half = head_dim / 2;
  for (int64_t i = 0; i < half; ++i) {
    // Rounded where Hugging Face's float32 computation rounds.
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(head_dim);
    const float frequency =
        1.0f / static_cast<float>(std::pow(theta, static_cast<double>(exponent)));
    for (int64_t position = 0; position < num_positions; ++position) {
      const float angle = static_cast<float>(position) * frequency;
      cosines[position * half + i] = static_cast<float>(std::cos(static_cast<double>(angle)));
      sines[position * half + i] = static_cast<float>(std::sin(static_cast<double>(angle)));
    }
  }
}

}  // namespace pregate
