#include "core/model/cuda_compute.h"

namespace pregate {

absl::StatusOr<std::unique_ptr<ModelCompute>> CreateCudaCompute(
    const ModelConfig& /*config*/,
    const ModelWeights& /*weights*/,
    const CudaComputeOptions& /*options*/,
    Backend& /*backend*/) {
  return absl::FailedPreconditionError("this build has no CUDA: `make cuda` builds one that has");
}

void DemandOnGpu(const ModelConfig& /*config*/,
                 const EngineOptions& /*options*/,
                 MemoryDemand& /*demand*/) {}

}  // namespace pregate
