#include "core/kernel/lanes.h"
#include "core/kernel/norm_rope.h"

namespace pregate::PREGATE_CPU_LEVEL {

void RmsNorm(const RmsNormArgs& args, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const float* x = args.x + row * args.width;
    float* out = args.out + row * args.width;
    const float mean = Dot(x, x, args.width) / static_cast<float>(args.width);
    const float scale = 1.0f / __builtin_sqrtf(mean + args.epsilon);
    for (int64_t i = 0; i < args.width; ++i) out[i] = args.weight[i] * (x[i] * scale);
  }
}

void Rope(const RopeArgs& args, int64_t begin, int64_t end) {
  const int64_t half = args.head_dim / 2;
  for (int64_t token = begin; token < end; ++token) {
    const float* cosines = args.cosines + args.positions[token] * half;
    const float* sines = args.sines + args.positions[token] * half;
    for (int64_t head = 0; head < args.num_heads; ++head) {
      float* first = args.x + (token * args.num_heads + head) * args.head_dim;
      float* second = first + half;
      for (int64_t i = 0; i < half; ++i) {
        const float a = first[i];
        const float b = second[i];
        first[i] = a * cosines[i] - b * sines[i];
        second[i] = b * cosines[i] + a * sines[i];
      }
    }
  }
}

}  // namespace pregate::PREGATE_CPU_LEVEL
