// Matrix products whose rows do not depend on each other, to the bit.
#pragma once

#include <cstdint>
#include <vector>

#include "core/base/options.h"
#include "core/kernel/cpu_kernels.h"
#include "core/model/aten.h"

namespace pregate {

// A weight matrix as products read it: [in, out], the transpose of an [out, in] tensor in memory.
using Matrix = at::Tensor;

struct MatrixShape {
  int64_t out = 0;
  int64_t in = 0;
};

// A BLAS picks its algorithm, and with it the order of its sums, by the number of rows. Here rows
// go to it only in numbers that were seen to give one row the same bits. Used by one thread at a
// time.
class Product {
 public:
  // `row_counts`: the numbers of rows that may go together, ascending, at least one. Products of up
  // to `max_in` and `max_out` columns.
  Product(CpuContext cpu,
          Dtype dtype,
          std::vector<int64_t> row_counts,
          int64_t max_in,
          int64_t max_out);

  // y = x · matrix, x [num_rows, in] and y [num_rows, out] in row-major order and not overlapping.
  // With bfloat16 x and y are rounded to it. num_rows may be 0.
  void Run(const float* x, int64_t num_rows, const Matrix& matrix, float* y);

  const std::vector<int64_t>& row_counts() const { return row_counts_; }

 private:
  // The rows of the next call, and how many of them are not padding.
  struct Piece {
    int64_t rows;
    int64_t used;
  };
  Piece NextPiece(int64_t rows_left) const;
  void RunFloat32(const float* x, Piece piece, const Matrix& matrix, float* y);
  void RunBfloat16(const float* x, Piece piece, const Matrix& matrix, float* y);

  const CpuContext cpu_;
  const Dtype dtype_;
  const std::vector<int64_t> row_counts_;
  at::Tensor in_;   // [max rows, max_in], of dtype: padded or rounded rows
  at::Tensor out_;  // [max rows, max_out]
};

// The numbers of rows among 1 … 8, 16 and 32 that on this CPU, with LibTorch's present number
// of threads, give each row of a product the bits that it gets among eight, wherever it stands.
// Tried on matrices of each shape whose sums cancel, so that another order shows. Just {1} when
// rows in eights depend on their place. Takes milliseconds.
std::vector<int64_t> FindExactRowCounts(Dtype dtype, const std::vector<MatrixShape>& shapes);

}  // namespace pregate
