#include "core/kernel/codec.h"
#include "core/kernel/codec_format.h"
#include "core/kernel/lanes.h"

namespace pregate::PREGATE_CPU_LEVEL {
namespace {

// A weight row is decoded in pieces that stay in the first-level cache and are then multiplied with
// every row of x. A multiple of a group of kInt4, and so of the lanes.
constexpr int64_t kPiece = 4096;

// Rows of x that are multiplied side by side: as many sums as the level has registers for.
constexpr int64_t kRowsAtOnce = kRegisterLanes == 4 ? 2 : 4;

typedef int8_t ByteRegister __attribute__((vector_size(kRegisterLanes)));
typedef int16_t ShortRegister __attribute__((vector_size(kRegisterLanes * 2)));
typedef int32_t IntRegister __attribute__((vector_size(kRegisterLanes * 4)));
typedef uint8_t ByteLanes __attribute__((vector_size(kLanes)));

// One row of one matrix. The scale of kInt4 is in the decoded numbers, that of the others is not.
struct Row {
  const std::byte* values;
  const uint8_t* indices;
  const uint16_t* scales;
  const uint16_t* zeros;
};

// The first lanes of `bytes` as floats. Step by step, since GCC 12 converts lane by lane otherwise.
PREGATE_INLINE Register WidenBytes(const int8_t* bytes) {
  ByteRegister narrow;
  __builtin_memcpy(&narrow, bytes, sizeof(narrow));
  const ShortRegister wider = __builtin_convertvector(narrow, ShortRegister);
  return __builtin_convertvector(__builtin_convertvector(wider, IntRegister), Register);
}

PREGATE_INLINE void DecodeInt8(const Row& row, int64_t begin, int64_t count, float* out) {
  const auto* numbers = reinterpret_cast<const int8_t*>(row.values) + begin;
  int64_t i = 0;
  for (; i + kRegisterLanes <= count; i += kRegisterLanes)
    StoreRegister(WidenBytes(numbers + i), out + i);
  for (; i < count; ++i) out[i] = numbers[i];
}

PREGATE_INLINE void DecodeInt4(const Row& row, int64_t begin, int64_t count, float* out) {
  const auto* numbers = reinterpret_cast<const uint8_t*>(row.values);
  // The last run may be longer than the row: `out` has room for whole runs.
  for (int64_t i = 0; i < count; i += kInt4Run) {
    const int64_t group = (begin + i) / kInt4Group;
    const float scale = WidenBfloat16(row.scales[group]);
    const float zero = WidenBfloat16(row.zeros[group]);
    ByteLanes packed;
    __builtin_memcpy(&packed, numbers + (begin + i) / 2, sizeof(packed));
    const ByteLanes halves[2] = {packed & 15, packed >> 4};
    int8_t bytes[kInt4Run];
    __builtin_memcpy(bytes, halves, sizeof(bytes));
    for (int64_t lane = 0; lane < kInt4Run; lane += kRegisterLanes) {
      StoreRegister(scale * (WidenBytes(bytes + lane) - zero), out + i + lane);
    }
  }
}

// Eight groups of four: two kept bytes of each, and two bits for the place of either.
constexpr int64_t kGroups = 8;
typedef uint16_t KeptPairs __attribute__((vector_size(kGroups * 2)));
typedef uint32_t Groups __attribute__((vector_size(kGroups * 4)));

PREGATE_INLINE void DecodeSparse(const Row& row, int64_t begin, int64_t count, float* out) {
  const auto* numbers = reinterpret_cast<const int8_t*>(row.values) + begin / 2;
  const uint8_t* indices = row.indices + begin / 8;
  int64_t i = 0;
  for (; i + kGroups * 4 <= count; i += kGroups * 4) {
    KeptPairs pairs;
    __builtin_memcpy(&pairs, numbers + i / 2, sizeof(pairs));
    uint32_t all_places;
    __builtin_memcpy(&all_places, indices + i / 8, sizeof(all_places));
    const Groups kept = __builtin_convertvector(pairs, Groups);
    const Groups places = all_places >> Groups{0, 4, 8, 12, 16, 20, 24, 28};
    // The bytes of a group are shifted to where they stand, eight bits for each place.
    const Groups spread = (kept & 0xff) << ((places & 3) << 3) | kept >> 8 << ((places & 12) << 1);
    int8_t bytes[kGroups * 4];
    __builtin_memcpy(bytes, &spread, sizeof(bytes));
    for (int64_t lane = 0; lane < kGroups * 4; lane += kRegisterLanes) {
      StoreRegister(WidenBytes(bytes + lane), out + i + lane);
    }
  }
  for (int64_t rest = i; rest < count; ++rest) out[rest] = 0;
  for (int64_t group = i / 4; group < count / 4; ++group) {
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

// y[r] += weights · x[r] for the rows [first, first + kRows) of x, from input `begin` on; the first
// piece of a row overwrites y.
template <int64_t kRows>
PREGATE_INLINE void MultiplyRows(const EncodedProductArgs& args,
                                 const float* weights,
                                 int64_t begin,
                                 int64_t count,
                                 int64_t output,
                                 int64_t first) {
  const int64_t in = args.matrix->in;
  float sums[kRows];
  Dots<kRows>(weights, args.x + first * in + begin, in, count, sums);
  for (int64_t r = 0; r < kRows; ++r) {
    float* y = args.y + (first + r) * args.matrix->out + output;
    *y = begin == 0 ? sums[r] : *y + sums[r];
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
        .zeros = reinterpret_cast<const uint16_t*>(args.record + matrix.zeros) + o * groups};
    float scale = 1;
    if (codec != Codec::kInt4) {
      __builtin_memcpy(&scale,
                       args.record + matrix.scales + o * static_cast<int64_t>(sizeof(float)),
                       sizeof(scale));
    }
    for (int64_t first = 0; first < in; first += kPiece) {
      const int64_t count = in - first < kPiece ? in - first : kPiece;
      Decode(codec, row, first, count, decoded);
      int64_t r = 0;
      for (; r + kRowsAtOnce <= args.num_rows; r += kRowsAtOnce) {
        MultiplyRows<kRowsAtOnce>(args, decoded, first, count, o, r);
      }
      for (; r < args.num_rows; ++r) MultiplyRows<1>(args, decoded, first, count, o, r);
    }
    for (int64_t r = 0; r < args.num_rows; ++r) args.y[r * matrix.out + o] *= scale;
  }
}

}  // namespace pregate::PREGATE_CPU_LEVEL
