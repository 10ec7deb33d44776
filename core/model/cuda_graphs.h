// Launches that come again and again, as CUDA graphs: one launch of the host for all of them.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <tuple>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"

namespace pregate {

// Used by one thread.
class CudaGraphs {
 public:
  // What tells the launches of one body from those of another.
  struct Key {
    uint32_t layer = 0;
    uint32_t num_tokens = 0;
    uint32_t num_parts = 0;
    uint32_t gates_ahead = 0;
    friend bool operator==(const Key&, const Key&) = default;
    template <typename H>
    friend H AbslHashValue(H state, const Key& key) {
      return H::combine(
          std::move(state), key.layer, key.num_tokens, key.num_parts, key.gates_ahead);
    }
  };

  CudaGraphs() = default;
  CudaGraphs(const CudaGraphs&) = delete;
  CudaGraphs& operator=(const CudaGraphs&) = delete;
  ~CudaGraphs();

  // Does what `body` gives to `stream`: the same, whenever the key is the same. The first time by
  // calling it, the second time it is recorded. Passes of more than kMaxTokens tokens, which
  // launching costs little, are not.
  absl::Status Run(const Key& key, cudaStream_t stream, absl::FunctionRef<absl::Status()> body);

 private:
  static constexpr uint32_t kMaxTokens = 64;
  static constexpr size_t kMaxGraphs = 4096;  // then all are made anew

  absl::flat_hash_map<Key, cudaGraphExec_t> graphs_;  // null: seen once
};

}  // namespace pregate
