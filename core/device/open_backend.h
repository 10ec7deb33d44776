// Backends by the name that --device gives them.
#pragma once

#include <memory>
#include <optional>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "core/device/backend.h"
#include "core/device/cpu_backend.h"

namespace pregate {

// `device`: "cpu", "cuda" (the first GPU), "cuda:N", or "auto" (the first GPU where one can be
// used, else the CPU). `link` paces the CPU's copies. INVALID_ARGUMENT: another name, or a link for
// a GPU; else as CreateCudaBackend.
absl::StatusOr<std::unique_ptr<Backend>> OpenBackend(absl::string_view device,
                                                     std::optional<SimulatedLink> link);

}  // namespace pregate
