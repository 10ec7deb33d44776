#include "core/model/product_bound.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <vector>

namespace pregate {
namespace {

// One call of at::mm_out, everything prepared.
struct Call {
  at::Tensor out;
  at::Tensor x;
  Matrix matrix;
};

// The calls of a pass in their order.
class Calls {
 public:
  void Add(int64_t num_rows, const Matrix& matrix) {
    if (num_rows == 0) return;
    calls_.push_back({.out = EmptyTensor({num_rows, matrix.size(1)}, matrix.scalar_type()),
                      .x = at::randn({num_rows, matrix.size(0)}).to(matrix.scalar_type()),
                      .matrix = matrix});
  }

  double RunSeconds() {
    const auto start = std::chrono::steady_clock::now();
    for (Call& call : calls_) at::mm_out(call.out, call.x, call.matrix);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }

 private:
  std::vector<Call> calls_;
};

std::vector<int64_t> CountRows(const Routing& routing, uint32_t layer, size_t num_experts) {
  std::vector<int64_t> rows(num_experts);
  for (uint32_t token = 0; token < routing.num_tokens; ++token) {
    for (const uint32_t expert : routing.ExpertsOf(layer, token)) ++rows[expert];
  }
  return rows;
}

}  // namespace

ProductBound::ProductBound(const CpuCompute& compute) : compute_(compute) {
  const ModelConfig& config = compute.config();
  const at::ScalarType type = ScalarTypeOf(compute.options().dtype);
  std::vector<MatrixShape> shapes = {{config.expert_width, config.hidden_size},
                                     {config.hidden_size, config.expert_width}};
  if (config.family->is_gated()) shapes.push_back(shapes.front());
  experts_.resize(size_t{config.num_layers} * config.num_experts);
  for (std::vector<Matrix>& expert : experts_) {
    for (const MatrixShape& shape : shapes) {
      expert.push_back(at::randn({shape.out, shape.in}).to(type).t());
    }
  }
}

double ProductBound::MeasureSeconds(const Routing& routing,
                                    uint32_t num_logits,
                                    uint32_t repetitions) const {
  Calls calls;
  const uint32_t num_experts = compute_.config().num_experts;
  for (uint32_t layer = 0; layer < routing.num_layers; ++layer) {
    const LayerWeights& weights = compute_.weights().layers[layer];
    for (const Matrix* matrix : {&weights.query, &weights.key, &weights.value, &weights.output}) {
      calls.Add(routing.num_tokens, *matrix);
    }
    for (const at::Tensor* gate : {&weights.gate, &weights.pregate}) {
      if (gate->defined()) calls.Add(routing.num_tokens, gate->t());
    }
    const std::vector<int64_t> rows = CountRows(routing, layer, num_experts);
    for (uint32_t expert = 0; expert < num_experts; ++expert) {
      for (const Matrix& matrix : experts_[size_t{layer} * num_experts + expert]) {
        calls.Add(rows[expert], matrix);
      }
    }
  }
  calls.Add(num_logits, compute_.weights().head);

  calls.RunSeconds();
  double seconds = std::numeric_limits<double>::infinity();
  for (uint32_t i = 0; i < repetitions; ++i) seconds = std::min(seconds, calls.RunSeconds());
  return seconds;
}

}  // namespace pregate
