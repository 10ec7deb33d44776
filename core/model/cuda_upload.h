// What a GPU is given once, when a model is loaded.
#pragma once

#include "absl/status/status.h"
#include "core/device/backend.h"
#include "core/model/checkpoint.h"
#include "core/model/cuda_memory.h"
#include "core/model/model_config.h"

namespace pregate {

// Copies `weights` (in bfloat16) to where `out` lies on the device of `stream`, and waits for it.
absl::Status UploadWeights(const ModelConfig& config,
                           const ModelWeights& weights,
                           const Sizes& sizes,
                           const DenseWeights& out,
                           Stream& stream);

// Fills work.cosines and work.sines, and waits for it.
absl::Status UploadRopeTables(const ModelConfig& config,
                              const Sizes& sizes,
                              const Workspace& work,
                              Stream& stream);

}  // namespace pregate
