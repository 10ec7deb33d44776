// How kernels use threads: they are handed a loop, and own none.
#pragma once

#include <cstdint>
#include <functional>

#include "absl/functional/function_ref.h"

namespace pregate {

// Calls body(begin, end) on disjoint ranges that cover [0, count), each but the last of at least
// `grain`, on any threads, and returns when all have returned. What is computed does not depend on
// how it is cut.
using ParallelFor = std::function<void(
    int64_t count, int64_t grain, absl::FunctionRef<void(int64_t begin, int64_t end)> body)>;

// All on the calling thread.
inline void RunSerially(int64_t count,
                        int64_t /*grain*/,
                        absl::FunctionRef<void(int64_t begin, int64_t end)> body) {
  if (count > 0) body(0, count);
}

}  // namespace pregate
