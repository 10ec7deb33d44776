// Where the numbers of an encoded row are, for those who write and read them.
#pragma once

#include <cstdint>

namespace pregate {

inline constexpr uint32_t kInt4Group = 128;  // inputs that share a scale and a zero point

// Four-bit numbers stand in runs of 32: byte j of a run has number j in its low half and number
// j + 16 in its high one, so that sixteen at a time come out of a vector without a shuffle.
inline constexpr uint32_t kInt4Run = 32;
constexpr uint32_t Int4Byte(uint32_t input) { return input / kInt4Run * 16 + input % 16; }
constexpr uint32_t Int4Shift(uint32_t input) { return input % kInt4Run / 16 * 4; }

}  // namespace pregate
