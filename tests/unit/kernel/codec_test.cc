#include "core/kernel/codec.h"

#include <cstring>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace pregate {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::ElementsAreArray;

// up [4, 8] of an expert, encoded: one row of numbers, and three of zeros.
class EncodedRow {
 public:
  EncodedRow(Codec codec, Dtype dtype, std::vector<float> row)
      : layout_(LayOutRecord(codec, {.hidden_size = 8, .expert_width = 4, .dtype = dtype}).value()),
        record_(layout_.bytes, std::byte{0xee}) {
    row.resize(size_t{4} * 8);
    EncodeMatrix(layout_, layout_.up, row.data(), absl::MakeSpan(record_));
  }

  const EncodedMatrix& up() const { return layout_.up; }
  template <typename T>
  std::vector<T> Part(uint64_t offset, size_t count) const {
    std::vector<T> part(count);
    std::memcpy(part.data(), &record_[offset], count * sizeof(T));
    return part;
  }

 private:
  const RecordLayout layout_;
  std::vector<std::byte> record_;
};

const std::vector<float> kRow = {1, -1, 0.3f, 0.25f, 0, -0.126f, 0.75f, 0.1f};

// What follows is in packs on disk: another byte is another format, and needs another name.

TEST(Codec, NoneKeepsTheNumbers) {
  const EncodedRow full(Codec::kNone, Dtype::kFloat32, kRow);
  EXPECT_EQ(full.Part<float>(full.up().values, 8), kRow);
  // 1 + 2^-8 and 1 + 3 · 2^-8 lie in the middle of two numbers: to the even one.
  const EncodedRow half(
      Codec::kNone, Dtype::kBfloat16, {1, -1, 0.3f, 1.00390625f, 1.01171875f, 0, 1e-40f, -0.0f});
  EXPECT_THAT(half.Part<uint16_t>(half.up().values, 8),
              ElementsAre(0x3f80, 0xbf80, 0x3e9a, 0x3f80, 0x3f82, 0, 0x0001, 0x8000));
}

TEST(Codec, Int8HasAScaleForEachRow) {
  const EncodedRow encoded(Codec::kInt8, Dtype::kFloat32, kRow);
  EXPECT_EQ(encoded.up().row_bytes, 8u);
  EXPECT_THAT(encoded.Part<int8_t>(encoded.up().values, 8),
              ElementsAre(127, -127, 38, 32, 0, -16, 95, 13));
  EXPECT_THAT(encoded.Part<int8_t>(encoded.up().values + 8, 24), Each(0));
  EXPECT_THAT(encoded.Part<float>(encoded.up().scales, 4), ElementsAre(1.0f / 127, 0, 0, 0));
}

TEST(Codec, Int4HasAScaleAndAZeroForEachGroup) {
  const EncodedRow encoded(Codec::kInt4, Dtype::kFloat32, kRow);
  EXPECT_EQ(encoded.up().row_bytes, 16u);
  std::vector<uint8_t> expected = {15, 0, 10, 9, 7, 7, 13, 8};
  expected.resize(size_t{4} * 16);
  EXPECT_THAT(encoded.Part<uint8_t>(encoded.up().values, 64), ElementsAreArray(expected));
  // 2 / 15 and 1 / (2 / 15) as bfloat16.
  EXPECT_THAT(encoded.Part<uint16_t>(encoded.up().scales, 4), ElementsAre(0x3e09, 0, 0, 0));
  EXPECT_THAT(encoded.Part<uint16_t>(encoded.up().zeros, 4), ElementsAre(0x40ef, 0, 0, 0));
}

TEST(Codec, SparseKeepsTwoOfFourAndWhereTheyStood) {
  const EncodedRow encoded(Codec::kSparse, Dtype::kFloat32, kRow);
  EXPECT_EQ(encoded.up().row_bytes, 4u);
  EXPECT_THAT(encoded.Part<int8_t>(encoded.up().values, 4), ElementsAre(127, -127, -16, 95));
  // Places 0 and 1 of the first four, 1 and 2 of the second; of zeros the first two.
  EXPECT_THAT(encoded.Part<uint8_t>(encoded.up().indices, 4), ElementsAre(0x94, 0x44, 0x44, 0x44));
  EXPECT_THAT(encoded.Part<float>(encoded.up().scales, 4), ElementsAre(1.0f / 127, 0, 0, 0));
}

TEST(Codec, SparseKeepsTheFirstOfEqualMagnitudes) {
  const EncodedRow encoded(Codec::kSparse, Dtype::kFloat32, {1, -1, 1, -1, -1, 2, 1, 1});
  EXPECT_THAT(encoded.Part<int8_t>(encoded.up().values, 4), ElementsAre(64, -64, -64, 127));
  EXPECT_THAT(encoded.Part<uint8_t>(encoded.up().indices, 1), ElementsAre(0x44));
}

}  // namespace
}  // namespace pregate
