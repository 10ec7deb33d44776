// How much work a thread should get at least.
#pragma once

#include <algorithm>
#include <cstdint>

namespace pregate {

// The items of a ParallelFor's range when each costs about `operations`: waking a thread costs as
// much as some ten thousand.
inline int64_t GrainFor(int64_t operations) {
  return std::max<int64_t>(1, 16384 / std::max<int64_t>(1, operations));
}

}  // namespace pregate
