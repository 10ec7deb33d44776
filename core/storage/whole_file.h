// Small files, read and written whole.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace pregate {

// All of a file. NOT_FOUND: there is none; RESOURCE_EXHAUSTED: it has more than `max_bytes`.
absl::StatusOr<std::string> ReadWholeFile(const std::string& path, uint64_t max_bytes);

// Whoever opens `path` finds what was there before or all of `bytes`, also after a kill or a power
// cut at any moment. Written to PATH.partial first, by one writer at a time.
absl::Status WriteWholeFile(const std::string& path, absl::string_view bytes);

// 64-bit XXH3, which finds damage and is no protection.
uint64_t Checksum(absl::string_view bytes);

}  // namespace pregate
