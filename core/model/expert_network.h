// One expert's feed-forward network, computed from its record.
#pragma once

#include <cstdint>

#include "core/kernel/codec.h"
#include "core/model/aten.h"
#include "core/model/model_config.h"
#include "core/model/product.h"

namespace pregate {

// Used by one thread at a time.
class ExpertNetwork {
 public:
  // Of up to `max_rows` at a time. The references outlive this.
  ExpertNetwork(const ModelConfig& config,
                const CpuContext& cpu,
                Product& product,
                int64_t max_rows);

  // out = expert(x), both [num_rows, hidden] and not overlapping. `record`: as `layout` says.
  void Run(const RecordLayout& layout,
           const std::byte* record,
           const float* x,
           int64_t num_rows,
           float* out);

  uint64_t workspace_bytes() const { return inner_.nbytes() + gated_.nbytes(); }

 private:
  // y = x · matrixᵀ for x [num_rows, matrix.in].
  void Multiply(const RecordLayout& layout,
                const EncodedMatrix& matrix,
                const std::byte* record,
                const float* x,
                int64_t num_rows,
                float* y);

  const ModelConfig& config_;
  const CpuContext& cpu_;
  Product& product_;
  at::Tensor inner_, gated_;  // [max_rows, expert_width]; gated_ only if experts are
};

}  // namespace pregate
