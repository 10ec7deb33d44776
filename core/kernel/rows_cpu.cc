#include "core/kernel/lanes.h"
#include "core/kernel/rows.h"

namespace pregate::PREGATE_CPU_LEVEL {
namespace {

PREGATE_INLINE void WidenRow(const uint16_t* x, float* out, int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] = WidenBfloat16(x[i]);
}

}  // namespace

void Gather(const GatherArgs& args, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    const int64_t from = static_cast<int64_t>(args.rows[i]) * args.width;
    float* out = args.out + i * args.width;
    if (args.dtype == Dtype::kBfloat16) {
      WidenRow(static_cast<const uint16_t*>(args.table) + from, out, args.width);
    } else {
      const float* row = static_cast<const float*>(args.table) + from;
      for (int64_t d = 0; d < args.width; ++d) out[d] = row[d];
    }
  }
}

void Add(const float* x, float* sum, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) sum[i] += x[i];
}

void ToBfloat16(const float* x, uint16_t* out, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) out[i] = RoundToBfloat16(x[i]);
}

void FromBfloat16(const uint16_t* x, float* out, int64_t begin, int64_t end) {
  WidenRow(x + begin, out + begin, end - begin);
}

bool AllFinite(const void* x, bool is_bfloat16, int64_t count) {
  // Infinities and NaNs are what has all bits of the exponent set.
  uint32_t not_finite = 0;
  for (int64_t i = 0; i < count; ++i) {
    uint32_t bits;
    if (is_bfloat16) {
      bits = static_cast<uint32_t>(static_cast<const uint16_t*>(x)[i]) << 16;
    } else {
      __builtin_memcpy(&bits, static_cast<const float*>(x) + i, sizeof(bits));
    }
    not_finite |= (bits & 0x7f800000u) == 0x7f800000u ? 1 : 0;
  }
  return not_finite == 0;
}

}  // namespace pregate::PREGATE_CPU_LEVEL
