// CUDA's own name for a stream, for those who launch kernels. In builds with CUDA alone.
#pragma once

#include <cuda_runtime.h>

#include "core/device/backend.h"

namespace pregate {

// `stream` is of a backend that CreateCudaBackend made.
cudaStream_t CudaStreamOf(Stream& stream);

}  // namespace pregate
