// The GPU that the tests of this folder run on.
#pragma once

#include <memory>

#include "core/device/cuda_backend.h"

namespace pregate {

// The first GPU; null where there is none that can be used.
inline std::unique_ptr<Backend> MakeGpu() {
  absl::StatusOr<std::unique_ptr<Backend>> backend = CreateCudaBackend(0);
  return backend.ok() ? *std::move(backend) : nullptr;
}

}  // namespace pregate
