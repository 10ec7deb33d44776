#include "core/kernel/codec.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/base/check.h"
#include "core/base/status_macros.h"
#include "core/kernel/codec_format.h"
#include "core/kernel/grain.h"

namespace pregate {
namespace {

constexpr uint64_t kAlignment = 64;  // of a record's parts: a cache line, and a vector register

uint64_t CeilDivide(uint64_t a, uint64_t b) { return (a + b - 1) / b; }

// Lays the parts of a record one behind another.
class Layout {
 public:
  uint64_t Take(uint64_t bytes) {
    const uint64_t begin = end_;
    end_ += CeilDivide(bytes, kAlignment) * kAlignment;
    return begin;
  }
  uint64_t end() const { return end_; }

 private:
  uint64_t end_ = 0;
};

EncodedMatrix LayOutMatrix(Codec codec, Dtype dtype, uint32_t out, uint32_t in, Layout& layout) {
  EncodedMatrix matrix = {.out = out, .in = in};
  switch (codec) {
    case Codec::kNone:
      matrix.row_bytes = uint64_t{in} * (dtype == Dtype::kBfloat16 ? 2 : 4);
      matrix.values = layout.Take(out * matrix.row_bytes);
      break;
    case Codec::kInt8:
      matrix.row_bytes = in;
      matrix.values = layout.Take(out * matrix.row_bytes);
      matrix.scales = layout.Take(out * sizeof(float));
      break;
    case Codec::kInt4: {
      const uint64_t groups = CeilDivide(in, kInt4Group);
      matrix.row_bytes = CeilDivide(in, kInt4Run) * (kInt4Run / 2);
      matrix.values = layout.Take(out * matrix.row_bytes);
      matrix.scales = layout.Take(out * groups * sizeof(uint16_t));
      matrix.zeros = layout.Take(out * groups * sizeof(uint16_t));
      break;
    }
    case Codec::kSparse:
      matrix.row_bytes = in / 2;
      matrix.values = layout.Take(out * matrix.row_bytes);
      matrix.indices = layout.Take(out * CeilDivide(in, 8));
      matrix.scales = layout.Take(out * sizeof(float));
      break;
  }
  return matrix;
}

float FromBits(uint16_t bfloat16) {
  const uint32_t bits = uint32_t{bfloat16} << 16;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// To the nearest, ties to even.
uint16_t ToBits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// The scale with which the largest of `count` weights becomes 127.
float Int8Scale(const float* weights, uint32_t count) {
  float largest = 0;
  for (uint32_t i = 0; i < count; ++i) largest = std::max(largest, std::fabs(weights[i]));
  return largest / 127;
}

// To the nearest whole number, ties to even, for magnitudes below 2^22: above 1.5 · 2^23 floats
// have no fractions. Inline, where std::nearbyint is a call.
float Round(float value) {
  constexpr float kMagic = 12582912;
  return value + kMagic - kMagic;
}

int8_t ToInt8(float weight, float scale) {
  if (scale == 0) return 0;
  return static_cast<int8_t>(Round(std::clamp(weight / scale, -127.0f, 127.0f)));
}

template <typename T>
T* PartOf(absl::Span<std::byte> record, uint64_t offset) {
  return reinterpret_cast<T*>(record.data() + offset);
}
template <typename T>
const T* PartOf(absl::Span<const std::byte> record, uint64_t offset) {
  return reinterpret_cast<const T*>(record.data() + offset);
}

void EncodeNone(Dtype dtype,
                const EncodedMatrix& matrix,
                const float* weights,
                absl::Span<std::byte> record) {
  const uint64_t count = uint64_t{matrix.out} * matrix.in;
  if (dtype == Dtype::kFloat32) {
    std::copy_n(weights, count, PartOf<float>(record, matrix.values));
  } else {
    std::transform(weights, weights + count, PartOf<uint16_t>(record, matrix.values), ToBits);
  }
}

void EncodeInt8Row(const EncodedMatrix& matrix,
                   uint32_t row,
                   const float* weights,
                   absl::Span<std::byte> record) {
  const float scale = Int8Scale(weights, matrix.in);
  PartOf<float>(record, matrix.scales)[row] = scale;
  auto* values = PartOf<int8_t>(record, matrix.values + row * matrix.row_bytes);
  for (uint32_t i = 0; i < matrix.in; ++i) values[i] = ToInt8(weights[i], scale);
}

void EncodeInt4Row(const EncodedMatrix& matrix,
                   uint32_t row,
                   const float* weights,
                   absl::Span<std::byte> record) {
  const uint64_t groups = CeilDivide(matrix.in, kInt4Group);
  auto* values = PartOf<uint8_t>(record, matrix.values + row * matrix.row_bytes);
  std::fill_n(values, matrix.row_bytes, uint8_t{0});
  for (uint64_t group = 0; group < groups; ++group) {
    const uint32_t begin = static_cast<uint32_t>(group * kInt4Group);
    const uint32_t end = std::min(matrix.in, begin + kInt4Group);
    // The range reaches to 0, so that weights of 0 stay next to nothing.
    float least = 0;
    float most = 0;
    for (uint32_t i = begin; i < end; ++i) {
      least = std::min(least, weights[i]);
      most = std::max(most, weights[i]);
    }
    // Numbers are chosen for the scale and the zero point as they are stored.
    const uint16_t scale_bits = ToBits((most - least) / 15);
    const float scale = FromBits(scale_bits);
    const uint16_t zero_bits = ToBits(scale == 0 ? 0 : -least / scale);
    const float zero = FromBits(zero_bits);
    PartOf<uint16_t>(record, matrix.scales)[row * groups + group] = scale_bits;
    PartOf<uint16_t>(record, matrix.zeros)[row * groups + group] = zero_bits;
    for (uint32_t i = begin; i < end; ++i) {
      const float number = scale == 0 ? 0 : std::clamp(weights[i] / scale + zero, 0.0f, 15.0f);
      const auto bits = static_cast<uint8_t>(Round(number));
      values[Int4Byte(i)] |= static_cast<uint8_t>(bits << Int4Shift(i));
    }
  }
}

// Where the two largest magnitudes of four weights are, in ascending order; of equal ones the
// first.
std::pair<uint32_t, uint32_t> TwoLargest(const float* four) {
  uint32_t largest = 0;
  for (uint32_t i = 1; i < 4; ++i) {
    if (std::fabs(four[i]) > std::fabs(four[largest])) largest = i;
  }
  uint32_t next = largest == 0 ? 1 : 0;
  for (uint32_t i = next + 1; i < 4; ++i) {
    if (i != largest && std::fabs(four[i]) > std::fabs(four[next])) next = i;
  }
  return std::minmax({largest, next});
}

void EncodeSparseRow(const EncodedMatrix& matrix,
                     uint32_t row,
                     const float* weights,
                     absl::Span<std::byte> record) {
  const float scale = Int8Scale(weights, matrix.in);
  PartOf<float>(record, matrix.scales)[row] = scale;
  auto* values = PartOf<int8_t>(record, matrix.values + row * matrix.row_bytes);
  const uint64_t index_bytes = CeilDivide(matrix.in, 8);
  auto* indices = PartOf<uint8_t>(record, matrix.indices + row * index_bytes);
  std::fill_n(indices, index_bytes, uint8_t{0});
  for (size_t group = 0; group < matrix.in / 4; ++group) {
    const float* const four = weights + group * 4;
    const auto [low, high] = TwoLargest(four);
    values[group * 2] = ToInt8(four[low], scale);
    values[group * 2 + 1] = ToInt8(four[high], scale);
    indices[group / 2] |= static_cast<uint8_t>((low | high << 2) << (group % 2 * 4));
  }
}

}  // namespace

absl::string_view CodecName(Codec codec) {
  switch (codec) {
    case Codec::kNone:
      return "none";
    case Codec::kInt8:
      return "int8";
    case Codec::kInt4:
      return "int4";
    case Codec::kSparse:
      return "sparse";
  }
  PREGATE_CHECK(false, "unknown codec ", static_cast<int>(codec));
}

absl::StatusOr<Codec> ParseCodec(absl::string_view name) {
  const std::pair<absl::string_view, Codec> names[] = {{"none", Codec::kNone},
                                                       {"int8", Codec::kInt8},
                                                       {"int8_dynamic", Codec::kInt8},
                                                       {"int4", Codec::kInt4},
                                                       {"int4_grouped", Codec::kInt4},
                                                       {"sparse", Codec::kSparse},
                                                       {"structured_sparse", Codec::kSparse}};
  for (const auto& [known, codec] : names) {
    if (known == name) return codec;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("codec '", name, "' is not one of none, int8, int4, sparse"));
}

absl::StatusOr<RecordLayout> LayOutRecord(Codec codec, const ExpertShape& shape) {
  if (shape.hidden_size == 0 || shape.expert_width == 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "an expert of ", shape.hidden_size, " to ", shape.expert_width, " numbers has no weights"));
  }
  for (const uint32_t in : {shape.hidden_size, shape.expert_width}) {
    if (codec != Codec::kSparse || in % 4 == 0) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("codec sparse needs input sizes that 4 divides; this model has one of ", in));
  }
  RecordLayout layout;
  layout.codec = codec;
  layout.dtype = shape.dtype;
  Layout parts;
  layout.up = LayOutMatrix(codec, shape.dtype, shape.expert_width, shape.hidden_size, parts);
  if (shape.is_gated) {
    layout.gate = LayOutMatrix(codec, shape.dtype, shape.expert_width, shape.hidden_size, parts);
  }
  layout.down = LayOutMatrix(codec, shape.dtype, shape.hidden_size, shape.expert_width, parts);
  layout.bytes = parts.end();
  return layout;
}

void EncodeMatrix(const RecordLayout& layout,
                  const EncodedMatrix& matrix,
                  const float* weights,
                  absl::Span<std::byte> record) {
  PREGATE_CHECK(record.size() >= layout.bytes);
  if (layout.codec == Codec::kNone) return EncodeNone(layout.dtype, matrix, weights, record);
  const auto encode_row = layout.codec == Codec::kInt8   ? EncodeInt8Row
                          : layout.codec == Codec::kInt4 ? EncodeInt4Row
                                                         : EncodeSparseRow;
  for (uint32_t row = 0; row < matrix.out; ++row) {
    encode_row(matrix, row, weights + uint64_t{row} * matrix.in, record);
  }
}

void DecodeMatrix(const RecordLayout& layout,
                  const EncodedMatrix& matrix,
                  absl::Span<const std::byte> record,
                  float* weights) {
  const uint64_t groups = CeilDivide(matrix.in, kInt4Group);
  for (uint32_t row = 0; row < matrix.out; ++row) {
    float* const out = weights + uint64_t{row} * matrix.in;
    const uint64_t values = matrix.values + row * matrix.row_bytes;
    switch (layout.codec) {
      case Codec::kNone:
        if (layout.dtype == Dtype::kFloat32) {
          std::copy_n(PartOf<float>(record, values), matrix.in, out);
        } else {
          std::transform(PartOf<uint16_t>(record, values),
                         PartOf<uint16_t>(record, values) + matrix.in,
                         out,
                         FromBits);
        }
        break;
      case Codec::kInt8: {
        const float scale = PartOf<float>(record, matrix.scales)[row];
        const auto* numbers = PartOf<int8_t>(record, values);
        for (uint32_t i = 0; i < matrix.in; ++i) out[i] = scale * numbers[i];
        break;
      }
      case Codec::kInt4: {
        const auto* scales = PartOf<uint16_t>(record, matrix.scales) + row * groups;
        const auto* zeros = PartOf<uint16_t>(record, matrix.zeros) + row * groups;
        const auto* numbers = PartOf<uint8_t>(record, values);
        for (uint32_t i = 0; i < matrix.in; ++i) {
          const auto number = static_cast<float>(numbers[Int4Byte(i)] >> Int4Shift(i) & 15);
          out[i] = FromBits(scales[i / kInt4Group]) * (number - FromBits(zeros[i / kInt4Group]));
        }
        break;
      }
      case Codec::kSparse: {
        const float scale = PartOf<float>(record, matrix.scales)[row];
        const auto* numbers = PartOf<int8_t>(record, values);
        const auto* indices =
            PartOf<uint8_t>(record, matrix.indices + row * CeilDivide(matrix.in, 8));
        std::fill_n(out, matrix.in, 0.0f);
        for (uint32_t kept = 0; kept < matrix.in / 2; ++kept) {
          const uint32_t place = indices[kept / 4] >> (kept % 4 * 2) & 3;
          out[kept / 2 * 4 + place] = scale * numbers[kept];
        }
        break;
      }
    }
  }
}

void EncodedProduct(const CpuContext& cpu, const EncodedProductArgs& args) {
  PREGATE_CHECK(args.layout->codec != Codec::kNone);
  cpu.parallel_for(
      args.matrix->out,
      GrainFor(args.matrix->in * (args.num_rows + 1)),
      [&](int64_t begin, int64_t end) { cpu.kernels->encoded_product(args, begin, end); });
}

}  // namespace pregate
