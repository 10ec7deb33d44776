#include "core/model/torch_profiled_model.h"

#include <algorithm>
#include <utility>

#include "core/base/clock.h"
#include "core/base/status_macros.h"
#include "core/device/host_info.h"
#include "core/model/guarded.h"
#include "core/model/memory_plan.h"
#include "core/model/open_packs.h"
#include "core/model/torch_cpu.h"

namespace pregate {
namespace {

// Of the layers' products: all but the head's.
int64_t WidestProduct(const ModelConfig& config) {
  return std::max<int64_t>({config.hidden_size,
                            config.expert_width,
                            int64_t{config.num_heads} * config.head_dim,
                            int64_t{config.num_kv_heads} * config.head_dim});
}

template <typename Work>
double SecondsOf(Work&& work) {
  const RealClock clock;
  const TimePoint start = clock.Now();
  work();
  return ToSeconds(clock.Now() - start);
}

}  // namespace

TorchProfiledModel::TorchProfiledModel(const CpuCompute& compute,
                                       EngineOptions options,
                                       const RecordLayout& layout,
                                       uint32_t num_threads)
    : compute_(compute),
      options_(std::move(options)),
      layout_(layout),
      num_threads_(num_threads),
      product_(compute.options().cpu,
               compute.options().dtype,
               compute.options().row_counts,
               WidestProduct(compute.config()),
               WidestProduct(compute.config())),
      network_(compute.config(), compute.options().cpu, product_, kMostRows),
      in_(at::ones({kMostRows, WidestProduct(compute.config())}, at::kFloat)),
      out_(EmptyTensor({kMostRows, WidestProduct(compute.config())}, at::kFloat)) {}

std::vector<ProfiledModel::Encoding> TorchProfiledModel::encodings() const {
  if (HasOwnPack(options_.model)) {
    return {{.codec = std::string(CodecName(layout_.codec)), .record_bytes = layout_.bytes}};
  }
  const ModelConfig& config = compute_.config();
  const ExpertShape shape = {.hidden_size = config.hidden_size,
                             .expert_width = config.expert_width,
                             .is_gated = config.family->is_gated(),
                             .dtype = compute_.options().dtype};
  std::vector<Encoding> encodings;
  for (const Codec codec : {Codec::kNone, Codec::kInt8, Codec::kInt4}) {
    const absl::StatusOr<RecordLayout> layout = LayOutRecord(codec, shape);
    if (!layout.ok()) continue;  // which of these kNone always is
    encodings.push_back({.codec = std::string(CodecName(codec)), .record_bytes = layout->bytes});
  }
  return encodings;
}

absl::StatusOr<ProfiledModel::Room> TorchProfiledModel::PlanRoom(absl::string_view codec,
                                                                 uint32_t max_running) const {
  EngineOptions options = options_;
  options.max_running = max_running;
  options.experts.codec = std::string(codec);
  // The one that needs no slots: how many there can be is what is asked.
  options.experts.memory_strategy = "cpu_offload";
  PREGATE_ASSIGN_OR_RETURN(
      const MemoryPlan plan,
      PlanMemory(
          DemandOf(
              compute_.config(), compute_.options().dtype, compute_.options().max_context, options),
          options.experts,
          {.host_bytes = HostMemoryBytes(), .gpu_bytes = {}}));
  return Room{.slots = plan.slot_needs, .host_holds_all = plan.host_holds_all()};
}

absl::StatusOr<double> TorchProfiledModel::RunExpert(const std::byte* record, uint32_t rows) {
  return Guarded([&]() -> absl::StatusOr<double> {
    UseThreads(num_threads_);
    return SecondsOf([&] {
      network_.Run(
          layout_, record, in_.const_data_ptr<float>(), rows, out_.mutable_data_ptr<float>());
    });
  });
}

absl::StatusOr<double> TorchProfiledModel::RunDenseLayer() {
  return Guarded([&]() -> absl::StatusOr<double> {
    UseThreads(num_threads_);
    const std::vector<LayerWeights>& layers = compute_.weights().layers;
    const LayerWeights& layer = layers[next_layer_++ % layers.size()];
    return SecondsOf([&] {
      for (const Matrix* matrix : {&layer.query, &layer.key, &layer.value, &layer.output}) {
        product_.Run(in_.const_data_ptr<float>(), 1, *matrix, out_.mutable_data_ptr<float>());
      }
    });
  });
}

}  // namespace pregate
