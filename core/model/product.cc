#include "core/model/product.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/base/check.h"
#include "core/kernel/rows.h"

namespace pregate {
namespace {

// A tensor over memory that lives on. The const_cast is for at::from_blob; it is only read.
at::Tensor View(const void* data, int64_t rows, int64_t columns, at::ScalarType type) {
  return at::from_blob(const_cast<void*>(data), {rows, columns}, at::TensorOptions().dtype(type));
}

}  // namespace

Product::Product(
    CpuContext cpu, Dtype dtype, std::vector<int64_t> row_counts, int64_t max_in, int64_t max_out)
    : cpu_(std::move(cpu)), dtype_(dtype), row_counts_(std::move(row_counts)) {
  PREGATE_CHECK(!row_counts_.empty());
  // In float32 only padded rows go through the scratch, in bfloat16 all do.
  in_ = EmptyTensor({row_counts_.back(), max_in}, ScalarTypeOf(dtype));
  out_ = EmptyTensor({row_counts_.back(), max_out}, ScalarTypeOf(dtype));
}

Product::Piece Product::NextPiece(int64_t rows_left) const {
  // The largest count that is filled, else the smallest, padded.
  const auto above = std::upper_bound(row_counts_.begin(), row_counts_.end(), rows_left);
  if (above == row_counts_.begin()) return {.rows = *above, .used = rows_left};
  return {.rows = *std::prev(above), .used = *std::prev(above)};
}

void Product::Run(const float* x, int64_t num_rows, const Matrix& matrix, float* y) {
  const int64_t in = matrix.size(0);
  const int64_t out = matrix.size(1);
  for (int64_t row = 0; row < num_rows;) {
    const Piece piece = NextPiece(num_rows - row);
    if (dtype_ == Dtype::kBfloat16) {
      RunBfloat16(x + row * in, piece, matrix, y + row * out);
    } else {
      RunFloat32(x + row * in, piece, matrix, y + row * out);
    }
    row += piece.used;
  }
}

void Product::RunFloat32(const float* x, Piece piece, const Matrix& matrix, float* y) {
  const int64_t in = matrix.size(0);
  const int64_t out = matrix.size(1);
  if (piece.used == piece.rows) {
    at::Tensor result = View(y, piece.rows, out, at::kFloat);
    at::mm_out(result, View(x, piece.rows, in, at::kFloat), matrix);
    return;
  }
  auto* padded = in_.mutable_data_ptr<float>();
  std::copy_n(x, piece.used * in, padded);
  std::fill_n(padded + piece.used * in, (piece.rows - piece.used) * in, 0.0f);
  at::Tensor result = View(out_.const_data_ptr(), piece.rows, out, at::kFloat);
  at::mm_out(result, View(padded, piece.rows, in, at::kFloat), matrix);
  std::copy_n(result.const_data_ptr<float>(), piece.used * out, y);
}

void Product::RunBfloat16(const float* x, Piece piece, const Matrix& matrix, float* y) {
  const int64_t in = matrix.size(0);
  const int64_t out = matrix.size(1);
  auto* rounded = static_cast<uint16_t*>(in_.mutable_data_ptr());
  ToBfloat16(cpu_, x, rounded, piece.used * in);
  std::fill_n(rounded + piece.used * in, (piece.rows - piece.used) * in, uint16_t{0});
  at::Tensor result = View(out_.const_data_ptr(), piece.rows, out, at::kBFloat16);
  at::mm_out(result, View(rounded, piece.rows, in, at::kBFloat16), matrix);
  FromBfloat16(cpu_, static_cast<const uint16_t*>(result.const_data_ptr()), y, piece.used * out);
}

}  // namespace pregate
