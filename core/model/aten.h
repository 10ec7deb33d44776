// The part of LibTorch that this module uses. <torch/torch.h> would cost 20 seconds a file.
#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>

#include "core/base/options.h"

namespace pregate {

inline at::ScalarType ScalarTypeOf(Dtype dtype) {
  return dtype == Dtype::kBfloat16 ? at::kBFloat16 : at::kFloat;
}

// Uninitialized, aligned to 64 bytes.
inline at::Tensor EmptyTensor(at::IntArrayRef shape, at::ScalarType type) {
  return at::empty(shape, at::TensorOptions().dtype(type));
}

}  // namespace pregate
