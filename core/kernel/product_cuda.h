// Matrix products on a GPU with weights that are read as they lie in a record, in any codec: one
// matrix for all rows (the dense part of a model), or many records side by side, each for the rows
// that are its own (experts).
//
// Exactness: every number that comes out is one sum in one order, a function of the matrix, the row
// of x and the layout alone. So a row has the same bits alone and beside others, with its record
// alone in a launch or beside others, whatever max_rows is.
//
// Thread-safe; nothing is allocated or waited for. Work is ordered by `stream`. All launches of a
// process are for GPUs of one kind.
// Only launches fail here (INTERNAL, with CUDA's words); what a kernel meets shows at the stream.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "core/kernel/codec.h"
#include "core/kernel/expert_mlp.h"

namespace pregate {

// One record of a launch: where it is, and which of the launch's places are its own.
struct ExpertSpan {
  const std::byte* record = nullptr;  // device memory, 16-byte aligned
  uint32_t first = 0;                 // places[first … first + count)
  uint32_t count = 0;                 // 0 … max_rows
};

// What can travel with a launch.
inline constexpr uint32_t kFewSpans = 16;
inline constexpr uint32_t kFewPlaces = 64;

enum class ProductOutput {
  kFloat,      // float32
  kAdded,      // added to the float32 numbers that are there
  kActivated,  // bfloat16: activation(y), or activation(gate · x) · y where there is a gate
};

// All pointers but `matrix` and `gate` are to memory that the device reads, and 16-byte aligned;
// numbers of 16 bits are bfloat16.
struct CudaProductArgs {
  Codec codec = Codec::kNone;             // kNone: bfloat16
  const EncodedMatrix* matrix = nullptr;  // 32 divides in, 16 out; read during the call alone
  const EncodedMatrix* gate = nullptr;    // null, or of the same shape
  ProductOutput output = ProductOutput::kFloat;
  Activation activation = Activation::kRelu;
  const ExpertSpan* spans = nullptr;  // [num_spans]; null: `span` alone
  // The same spans and places in memory of the host, read during the call, or null. At most
  // kFewSpans, and places below kFewPlaces, each travel with the launch: `spans`, or `places`, is
  // not read then.
  const ExpertSpan* host_spans = nullptr;
  const uint32_t* host_places = nullptr;
  ExpertSpan span = {};
  const uint32_t* places = nullptr;  // null: a span's places are first … first + count
  const uint16_t* x = nullptr;       // [places / places_per_row, in]
  void* out = nullptr;               // [places, out]
  uint32_t num_spans = 1;            // at most 65535
  uint32_t places_per_row = 1;       // of x
  uint32_t max_rows = 0;  // no span has more; a bound that is too high costs empty blocks
  // The launch before this one wrote x and nothing else that this reads: weights may be fetched
  // while it still runs.
  bool follows_product = false;
};
// out[p] = matrix · x[p / places_per_row] for every place p of the spans; other rows of `out` stay
// as they are. Sums are float32.
//
// INVALID_ARGUMENT, naming the limit: sizes that do not divide, or too many spans.
absl::Status EncodedProduct(const CudaProductArgs& args, cudaStream_t stream);

}  // namespace pregate
