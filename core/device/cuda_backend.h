// NVIDIA GPUs as devices.
//
// Declared in every build: in one without CUDA (cuda_unavailable.cc) each function says so.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "core/device/backend.h"

namespace pregate {

// The GPU with this ordinal among those that the process may see (CUDA_VISIBLE_DEVICES).
//
// Device memory is the GPU's: the host may not read it. Reserved memory is mapped in units of
// commit_bytes, so that what is decommitted is free for other processes at once. Pinned memory lies
// in huge pages where the kernel gives them. A stream runs beside all others, the default one
// included. An error that CUDA keeps (an illegal address, a lost device) fails all later work of
// the process on the device: the process has to end.
//
// FAILED_PRECONDITION where there is no GPU or driver, the driver is older than the CUDA that this
// was built with, or the GPU older than compute capability 8.6; OUT_OF_RANGE names how many there
// are.
absl::StatusOr<std::unique_ptr<Backend>> CreateCudaBackend(int ordinal);

}  // namespace pregate
