// What a device profile asks of a model on LibTorch.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/base/options.h"
#include "core/expert/profile.h"
#include "core/model/cpu_compute.h"
#include "core/model/expert_network.h"
#include "core/model/product.h"

namespace pregate {

// Computes with a Product and tensors of its own; of the model only weights are read. Its
// constructor may throw what LibTorch throws; its methods do not.
class TorchProfiledModel final : public ProfiledModel {
 public:
  // `layout`: of the records that RunExpert is given. `options`: what the model was loaded with.
  // `compute` outlives this.
  TorchProfiledModel(const CpuCompute& compute,
                     EngineOptions options,
                     const RecordLayout& layout,
                     uint32_t num_threads);

  std::string device() const override { return "cpu"; }
  std::vector<Encoding> encodings() const override;
  absl::StatusOr<Room> PlanRoom(absl::string_view codec, uint32_t max_running) const override;
  absl::StatusOr<double> RunExpert(const std::byte* record, uint32_t rows) override;
  absl::StatusOr<double> RunDenseLayer() override;

 private:
  const CpuCompute& compute_;
  const EngineOptions options_;
  const RecordLayout layout_;
  const uint32_t num_threads_;
  Product product_;
  ExpertNetwork network_;
  at::Tensor in_, out_;  // [kMostRows, the widest of a product]
  size_t next_layer_ = 0;
};

}  // namespace pregate
