// A model's weights but its experts', read from its folder.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/base/log.h"
#include "core/base/options.h"
#include "core/kernel/cpu_kernels.h"
#include "core/model/aten.h"
#include "core/model/model_config.h"
#include "core/model/product.h"
#include "core/storage/safetensors.h"

namespace pregate {

// Matrices are of the model's dtype and lie in the mapped file where that has the same; vectors and
// gates are float32.
struct LayerWeights {
  at::Tensor input_norm;  // [hidden]
  Matrix query, key, value, output;
  at::Tensor query_norm, key_norm;  // [head_dim], undefined without
  at::Tensor post_attention_norm;   // [hidden]
  at::Tensor gate, pregate;         // [num_experts, hidden], undefined where the block has none
};

struct ModelWeights {
  at::Tensor embedding;  // [vocab, hidden], of the model's dtype
  std::vector<LayerWeights> layers;
  at::Tensor final_norm;  // [hidden]
  Matrix head;            // of [vocab, hidden]; the embedding's memory when tied

  uint64_t num_parameters = 0;  // without the experts'
  uint64_t mapped_bytes = 0;    // used where they are in the files
  uint64_t copied_bytes = 0;    // in memory of their own

  std::unique_ptr<const Safetensors> files;  // what the mapped tensors lie in
};

// Finds every dense tensor of the model in `files` and converts to `dtype` what is in another one.
// INVALID_ARGUMENT names the tensor and the file, and what its shape or dtype is and should be, or
// that it holds a number that is not finite. Tensors that the model has no use for are logged;
// experts' are passed over, see pack_experts.h. May throw what LibTorch throws when memory is
// short.
absl::StatusOr<ModelWeights> LoadWeights(std::unique_ptr<const Safetensors> files,
                                         const ModelConfig& config,
                                         Dtype dtype,
                                         const CpuContext& cpu,
                                         const Logger& logger);

}  // namespace pregate
