// What a benchmark's sequences read.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace pregate {

// `count` stretches of `length` tokens each: one after another of `text`, by the tokenizer of the
// folder `model`; of an empty text random ones below `vocab_size`, the same for the same `count`
// and `length`. INVALID_ARGUMENT: the text is too short.
absl::StatusOr<std::vector<std::vector<uint32_t>>> MakePrompts(const std::string& model,
                                                               absl::string_view text,
                                                               uint32_t count,
                                                               size_t length,
                                                               uint32_t vocab_size);

}  // namespace pregate
