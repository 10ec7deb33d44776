// How fast an engine generates.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "core/pregate.h"

namespace pregate {

// Submits all `prompts` (at least one) at once for greedy answers of `output_len` (≥ 2) tokens each
// and waits for them. Tokens per second from the first to the last token of the sequence that
// starts last: decoding alone, all sequences side by side.
absl::StatusOr<double> MeasureDecodeRate(Engine& engine,
                                         const std::vector<std::vector<uint32_t>>& prompts,
                                         uint32_t output_len);

}  // namespace pregate
