// Small files, whole.
#pragma once

#include <cstddef>
#include <string>

#include "absl/status/statusor.h"

namespace pregate {

// The bytes of the file at `path`, of which there may be `max_bytes`: no more memory is taken for a
// file that is larger, which is RESOURCE_EXHAUSTED. Errors name the path and the system's reason. A
// pipe's writer is not waited for.
absl::StatusOr<std::string> ReadFile(const std::string& path, size_t max_bytes);

}  // namespace pregate
