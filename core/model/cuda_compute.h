// A pass on an NVIDIA GPU: our kernels alone, LibTorch has no part in it.
//
// Declared in every build: in one without CUDA (cuda_compute_unavailable.cc) each function says so.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "core/base/options.h"
#include "core/device/backend.h"
#include "core/kernel/codec.h"
#include "core/model/checkpoint.h"
#include "core/model/compute.h"
#include "core/model/memory_plan.h"
#include "core/model/model_config.h"

namespace pregate {

struct CudaComputeOptions {
  std::vector<RecordLayout> layouts;  // of each encoding of the experts
  uint32_t max_tokens = 0;            // in a pass
  uint32_t max_context = 0;
  uint32_t max_logits = 0;  // tokens of a pass whose logits are wanted, at most
  uint32_t kv_block_size = 0;
  uint32_t num_kv_blocks = 0;
};

// Copies `weights` (in bfloat16) to the device of `backend`, a GPU's, and allocates all that a pass
// needs. `config` and `backend` outlive what is returned. INVALID_ARGUMENT names a size that the
// kernels cannot do; RESOURCE_EXHAUSTED: there is not enough memory.
absl::StatusOr<std::unique_ptr<ModelCompute>> CreateCudaCompute(const ModelConfig& config,
                                                                const ModelWeights& weights,
                                                                const CudaComputeOptions& options,
                                                                Backend& backend);

// Changes `demand`, which is the CPU's, to what CreateCudaCompute and the driver will take.
void DemandOnGpu(const ModelConfig& config, const EngineOptions& options, MemoryDemand& demand);

}  // namespace pregate
