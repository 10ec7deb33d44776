#include "core/model/expert_network.h"

#include "core/kernel/expert_mlp.h"

namespace pregate {

ExpertNetwork::ExpertNetwork(const ModelConfig& config,
                             const CpuContext& cpu,
                             Product& product,
                             int64_t max_rows)
    : config_(config),
      cpu_(cpu),
      product_(product),
      inner_(EmptyTensor({max_rows, config.expert_width}, at::kFloat)),
      gated_(EmptyTensor({config.family->is_gated() ? max_rows : 0, config.expert_width},
                         at::kFloat)) {}

void ExpertNetwork::Multiply(const RecordLayout& layout,
                             const EncodedMatrix& matrix,
                             const std::byte* record,
                             const float* x,
                             int64_t num_rows,
                             float* y) {
  if (layout.codec != Codec::kNone) {
    EncodedProduct(cpu_,
                   {.layout = &layout,
                    .matrix = &matrix,
                    .record = record,
                    .x = x,
                    .y = y,
                    .num_rows = num_rows});
    return;
  }
  // Records are only read; the const_cast is for at::from_blob.
  const at::ScalarType type = ScalarTypeOf(layout.dtype);
  const auto row_stride = static_cast<int64_t>(matrix.row_bytes / c10::elementSize(type));
  const Matrix view = at::from_blob(const_cast<std::byte*>(record + matrix.values),
                                    {matrix.in, matrix.out},
                                    {1, row_stride},
                                    at::TensorOptions().dtype(type));
  product_.Run(x, num_rows, view, y);
}

void ExpertNetwork::Run(const RecordLayout& layout,
                        const std::byte* record,
                        const float* x,
                        int64_t num_rows,
                        float* out) {
  auto* inner = inner_.mutable_data_ptr<float>();
  Multiply(layout, layout.up, record, x, num_rows, inner);
  ActivateArgs activate = {.x = inner,
                           .up = nullptr,
                           .out = inner,
                           .count = num_rows * config_.expert_width,
                           .activation = config_.family->activation};
  if (config_.family->is_gated()) {
    auto* gated = gated_.mutable_data_ptr<float>();
    Multiply(layout, layout.gate, record, x, num_rows, gated);
    activate.x = gated;
    activate.up = inner;
  }
  Activate(cpu_, activate);
  Multiply(layout, layout.down, record, inner, num_rows, out);
}

}  // namespace pregate
