// How an expert's weights are written down: in full, or in fewer bytes with a loss that
// docs/codecs.md measures. A record holds all matrices of one expert and what belongs to them; it
// is what lies in the pack, in host memory and in a slot, and products read it as it is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "core/base/options.h"
#include "core/kernel/cpu_kernels.h"

namespace pregate {

enum class Codec {
  kNone,    // numbers of the model's dtype
  kInt8,    // symmetric, a float32 scale for each output channel
  kInt4,    // groups of 128 along the input, a scale and a zero point (bfloat16 each) for each
  kSparse,  // of four neighbours along the input the two largest, as kInt8
};

// "none", "int8", "int4", "sparse".
absl::string_view CodecName(Codec codec);
// Also the prototype's spellings int8_dynamic, int4_grouped, structured_sparse. INVALID_ARGUMENT
// names what is allowed.
absl::StatusOr<Codec> ParseCodec(absl::string_view name);

// What all experts of a model have in common.
struct ExpertShape {
  uint32_t hidden_size = 0;
  uint32_t expert_width = 0;
  bool is_gated = false;          // has a gate matrix beside up
  Dtype dtype = Dtype::kFloat32;  // of kNone's numbers; the other codecs have none
  friend bool operator==(const ExpertShape&, const ExpertShape&) = default;
};

// A matrix [out, in] within a record: values row by row, then what the codec adds. Offsets are in
// bytes from the record's start and multiples of 64.
struct EncodedMatrix {
  uint32_t out = 0;
  uint32_t in = 0;
  uint64_t values = 0;
  uint64_t row_bytes = 0;  // of values, from one row to the next
  uint64_t indices = 0;    // kSparse: 2 bits for each kept number, row by row in whole bytes
  uint64_t scales = 0;     // kInt8, kSparse: float32 [out]; kInt4: bfloat16 [out, groups]
  uint64_t zeros = 0;      // kInt4: bfloat16 [out, groups]; a number is scale · (q − zero)
};

struct RecordLayout {
  Codec codec = Codec::kNone;
  Dtype dtype = Dtype::kFloat32;
  EncodedMatrix up;    // [expert_width, hidden]
  EncodedMatrix gate;  // the same, if gated; else out is 0
  EncodedMatrix down;  // [hidden, expert_width]
  uint64_t bytes = 0;  // of the whole record, a multiple of 64
};

// INVALID_ARGUMENT when the codec cannot hold matrices of this shape (kSparse: an input size that 4
// does not divide).
absl::StatusOr<RecordLayout> LayOutRecord(Codec codec, const ExpertShape& shape);

// Writes weights [out, in] into `record` [layout.bytes]. The same bytes on every machine.
void EncodeMatrix(const RecordLayout& layout,
                  const EncodedMatrix& matrix,
                  const float* weights,
                  absl::Span<std::byte> record);

// weights [out, in] = what `record` says. The plain reference that products are tested against.
void DecodeMatrix(const RecordLayout& layout,
                  const EncodedMatrix& matrix,
                  absl::Span<const std::byte> record,
                  float* weights);

struct EncodedProductArgs {
  const RecordLayout* layout = nullptr;
  const EncodedMatrix* matrix = nullptr;
  const std::byte* record = nullptr;
  const float* x = nullptr;  // [num_rows, in]
  float* y = nullptr;        // [num_rows, out]
  int64_t num_rows = 0;
};
// y = x · matrixᵀ for the codecs but kNone. Each number of y is one sum in one order, whatever the
// number of rows, the threads and the instruction level.
void EncodedProduct(const CpuContext& cpu, const EncodedProductArgs& args);

}  // namespace pregate
