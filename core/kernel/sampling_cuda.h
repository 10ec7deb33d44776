// The most likely token, on a GPU: logits need not come to the host for it.
//
// Thread-safe; nothing is kept between calls, allocated or waited for. Work is ordered by `stream`.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "absl/status/status.h"

namespace pregate {

// In place of a token: a logit of its row is not finite.
inline constexpr uint32_t kNoToken = UINT32_MAX;

struct CudaMostLikelyArgs {
  const float* logits = nullptr;  // [num_rows, stride]
  uint32_t* token_ids = nullptr;  // [num_rows], written; may be the host's mapped memory
  uint32_t num_rows = 0;
  uint32_t vocab_size = 0;  // of a row's numbers, the first
  uint32_t stride = 0;
};
// token_ids[i] = the id of row i's largest logit, of equals the lowest, or kNoToken. INTERNAL, with
// CUDA's words: a launch that failed.
absl::Status MostLikely(const CudaMostLikelyArgs& args, cudaStream_t stream);

}  // namespace pregate
