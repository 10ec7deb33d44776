// The self-check behind Product: see FindExactRowCounts.
#include <algorithm>
#include <cstring>
#include <utility>

#include "core/model/product.h"

namespace pregate {
namespace {

constexpr int64_t kTile = 8;       // the number of rows that others are compared with
constexpr int64_t kNumRows = 32;   // of the tried products
constexpr int64_t kShift = 3;      // where in a tile the tried rows begin, if they all fit
constexpr int64_t kMaxOut = 1024;  // columns that are tried of a wider matrix
constexpr int64_t kCandidates[] = {1, 2, 3, 4, 5, 6, 7, 8, 16, 32};

// Numbers in (-1, 1) from a linear congruential generator (Knuth's MMIX constants).
class Numbers {
 public:
  float Next() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<float>(static_cast<int32_t>(state_ >> 32)) * 0x1p-31f;
  }

 private:
  uint64_t state_ = 1;
};

// [num_rows, width], where element perm(i) of the second half is sign · element i of the first: so
// that x · w is 0 but for the rounding of its sum, which shows its order in every bit.
at::Tensor CancellingRows(
    int64_t num_rows, int64_t width, float sign, Dtype dtype, Numbers& numbers) {
  at::Tensor rows = EmptyTensor({num_rows, width}, at::kFloat);
  auto* x = rows.mutable_data_ptr<float>();
  const int64_t half = width / 2;
  const int64_t step = half > 2 ? half / 2 + 1 : 1;  // the permutation turns by this
  for (int64_t row = 0; row < num_rows; ++row, x += width) {
    for (int64_t i = 0; i < half; ++i) {
      // In bfloat16 from the start, so that both halves are rounded alike.
      const float value = static_cast<float>(static_cast<at::BFloat16>(numbers.Next()));
      x[i] = value;
      x[half + (i + step) % half] = sign * value;
    }
    if (width % 2 != 0) x[width - 1] = 0;
  }
  return rows.to(ScalarTypeOf(dtype));
}

// The product of rows [first, first + count).
at::Tensor Multiply(const at::Tensor& x, const at::Tensor& matrix, int64_t first, int64_t count) {
  at::Tensor y = EmptyTensor({count, matrix.size(1)}, x.scalar_type());
  at::mm_out(y, x.narrow(0, first, count), matrix);
  return y;
}

bool SameBits(const at::Tensor& a, const at::Tensor& b) {
  return std::memcmp(a.const_data_ptr(), b.const_data_ptr(), a.nbytes()) == 0;
}

// Whether `count` rows together get the bits of `expected`, though most stand elsewhere in a tile.
bool IsExact(const at::Tensor& x,
             const at::Tensor& matrix,
             const at::Tensor& expected,
             int64_t count) {
  const int64_t first = count + kShift <= kNumRows ? kShift : 0;
  return SameBits(Multiply(x, matrix, first, count), expected.narrow(0, first, count));
}

// The shapes that are tried for those of a model: cut, each once.
std::vector<MatrixShape> CutShapes(const std::vector<MatrixShape>& shapes) {
  std::vector<MatrixShape> cut;
  for (const MatrixShape& shape : shapes) {
    const MatrixShape tried = {.out = std::min(shape.out, kMaxOut), .in = shape.in};
    const auto is_same = [&](const MatrixShape& other) {
      return other.out == tried.out && other.in == tried.in;
    };
    if (std::none_of(cut.begin(), cut.end(), is_same)) cut.push_back(tried);
  }
  return cut;
}

}  // namespace

std::vector<int64_t> FindExactRowCounts(Dtype dtype, const std::vector<MatrixShape>& shapes) {
  std::vector<int64_t> exact(std::begin(kCandidates), std::end(kCandidates));
  Numbers numbers;
  for (const MatrixShape& shape : CutShapes(shapes)) {
    const at::Tensor x = CancellingRows(kNumRows, shape.in, 1, dtype, numbers);
    const at::Tensor matrix = CancellingRows(shape.out, shape.in, -1, dtype, numbers).t();
    at::Tensor expected = EmptyTensor({kNumRows, matrix.size(1)}, x.scalar_type());
    for (int64_t row = 0; row < kNumRows; row += kTile) {
      expected.narrow(0, row, kTile).copy_(Multiply(x, matrix, row, kTile));
    }
    if (!IsExact(x, matrix, expected, kTile)) return {1};
    std::erase_if(exact, [&](int64_t count) { return !IsExact(x, matrix, expected, count); });
  }
  return exact;
}

}  // namespace pregate
