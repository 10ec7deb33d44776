// Byte counts as people write them.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace pregate {

// "22GiB", "512MB", "1.5GiB" or "4096" in bytes. Units: B, kB, MB, GB, TB (powers of 1000), KiB,
// MiB, GiB, TiB (powers of 1024).
absl::StatusOr<uint64_t> ParseBytes(absl::string_view text);

// The largest binary unit that leaves a value of at least one, with one decimal: "22.0 GiB", "512.0
// MiB", "17 B".
std::string FormatBytes(uint64_t bytes);

}  // namespace pregate
