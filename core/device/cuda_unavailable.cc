#include "core/device/cuda_backend.h"

namespace pregate {

absl::StatusOr<std::unique_ptr<Backend>> CreateCudaBackend(int /*ordinal*/) {
  return absl::FailedPreconditionError("this build has no CUDA: `make cuda` builds one that has");
}

}  // namespace pregate
