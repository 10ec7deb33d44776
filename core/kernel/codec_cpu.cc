#include "core/kernel/codec.h"
#include "core/kernel/codec_format.h"
#include "core/kernel/lanes.h"

namespace pregate::PREGATE_CPU_LEVEL {
namespace {

// A weight row is decoded in pieces that stay in the first-level cache and are then multiplied with
// every row of x. A multiple of a group of kInt4, and so of the lanes.
constexpr int64_t kPiece = 4096;

typedef int8_t ByteLanes __attribute__((vector_size(16)));
typedef uint8_t UnsignedByteLanes __attribute__((vector_size(16)));

// One row of one matrix. The scale of kInt4 is in the decoded numbers, that of the others is not.
struct Row {
  const std::byte* values;
  const uint8_t* indices;
  const uint16_t* scales;
  const uint16_t* zeros;
  int64_t in;
};

PREGATE_INLINE void DecodeInt8(const Row& row, int64_t begin, int64_t count, float* out) {
  const auto* numbers = reinterpret_cast<const int8_t*>(row.values) + begin;
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    ByteLanes bytes;
    __builtin_memcpy(&bytes, numbers + i, sizeof(bytes));
    Store(__builtin_convertvector(bytes, Lanes), out + i);
  }
  for (; i < count; ++i) out[i] = numbers[i];
}

PREGATE_INLINE void DecodeInt4(const Row& row, int64_t begin, int64_t count, float* out) {
  const auto* numbers = reinterpret_cast<const uint8_t*>(row.values);
  // The last run may be longer than the row: `out` has room for whole runs.
  for (int64_t i = 0; i < count; i += kInt4Run) {
    const int64_t group = (begin + i) / kInt4Group;
    const Lanes scale = Broadcast(WidenBfloat16(row.scales[group]));
    const Lanes zero = Broadcast(WidenBfloat16(row.zeros[group]));
    UnsignedByteLanes bytes;
    __builtin_memcpy(&bytes, numbers + (begin + i) / 2, sizeof(bytes));
    Store(scale * (__builtin_convertvector(bytes & 15, Lanes) - zero), out + i);
    Store(scale * (__builtin_convertvector(bytes >> 4, Lanes) - zero), out + i + kLanes);
  }
}

PREGATE_INLINE void DecodeSparse(const Row& row, int64_t begin, int64_t count, float* out) {
  const auto* numbers = reinterpret_cast<const int8_t*>(row.values) + begin / 2;
  const uint8_t* indices = row.indices + begin / 8;
  for (int64_t i = 0; i < count; ++i) out[i] = 0;
  for (int64_t group = 0; group < count / 4; ++group) {
    const uint32_t places = indices[group / 2] >> (group % 2 * 4);
    out[group * 4 + (places & 3)] = numbers[group * 2];
    out[group * 4 + (places >> 2 & 3)] = numbers[group * 2 + 1];
  }
}

PREGATE_INLINE void Decode(Codec codec, const Row& row, int64_t begin, int64_t count, float* out) {
  if (codec == Codec::kInt8) {
    DecodeInt8(row, begin, count, out);
  } else if (codec == Codec::kInt4) {
    DecodeInt4(row, begin, count, out);
  } else {
    DecodeSparse(row, begin, count, out);
  }
}

}  // namespace

void EncodedProduct(const EncodedProductArgs& args, int64_t begin, int64_t end) {
  const EncodedMatrix& matrix = *args.matrix;
  const Codec codec = args.layout->codec;
  const int64_t in = matrix.in;
  const int64_t groups = (in + kInt4Group - 1) / kInt4Group;
  const int64_t index_bytes = (in + 7) / 8;
  float decoded[kPiece];
  for (int64_t o = begin; o < end; ++o) {
    const Row row = {
        .values = args.record + matrix.values + o * static_cast<int64_t>(matrix.row_bytes),
        .indices = reinterpret_cast<const uint8_t*>(args.record + matrix.indices) + o * index_bytes,
        .scales = reinterpret_cast<const uint16_t*>(args.record + matrix.scales) + o * groups,
        .zeros = reinterpret_cast<const uint16_t*>(args.record + matrix.zeros) + o * groups,
        .in = in};
    float scale = 1;
    if (codec != Codec::kInt4) {
      __builtin_memcpy(&scale,
                       args.record + matrix.scales + o * static_cast<int64_t>(sizeof(float)),
                       sizeof(scale));
    }
    for (int64_t first = 0; first < in; first += kPiece) {
      const int64_t count = in - first < kPiece ? in - first : kPiece;
      Decode(codec, row, first, count, decoded);
      for (int64_t r = 0; r < args.num_rows; ++r) {
        float* y = args.y + r * matrix.out + o;
        const float sum = Dot(decoded, args.x + r * in + first, count);
        *y = first == 0 ? sum : *y + sum;
      }
    }
    for (int64_t r = 0; r < args.num_rows; ++r) args.y[r * matrix.out + o] *= scale;
  }
}

}  // namespace pregate::PREGATE_CPU_LEVEL
