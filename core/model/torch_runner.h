// A model on LibTorch: runs the engine's steps, and shows raw logits and routing to those who
// measure a model. No LibTorch header is needed to use it.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/base/options.h"
#include "core/base/stats.h"
#include "core/engine/model_description.h"
#include "core/engine/model_runner.h"
#include "core/expert/expert_offload.h"
#include "core/expert/profile.h"
#include "core/model/forward.h"
#include "core/model/memory_plan.h"

namespace pregate {

class CpuCompute;
class ModelCompute;
class ProductBound;
class TorchProfiledModel;
class Transformer;

// Used by one thread at a time, but for VisitStats, which is thread-safe, and profiled.
class TorchRunner final : public ModelRunner {
 public:
  // Reads the folder `options.model` and prepares it for `options`. Errors name the file, the key
  // or tensor, what was found and what is allowed. FAILED_PRECONDITION: the device or the CPU
  // instructions asked for are not there, or the model does not fit into memory. Packs the experts
  // first where no pack of them is there yet (pack_experts.h). `logger` outlives the runner.
  static absl::StatusOr<std::unique_ptr<TorchRunner>> Load(const EngineOptions& options,
                                                           const Logger& logger);
  ~TorchRunner() override;

  // How Load would use the memory, without loading.
  static absl::StatusOr<MemoryPlan> Plan(const EngineOptions& options);

  const ModelDescription& description() const { return description_; }
  ExpertOffload& experts() { return *experts_; }
  // May be used by another thread while this runs. Null on a GPU.
  ProfiledModel* profiled();
  uint32_t max_batch_tokens() const;

  const Limits& limits() const override { return limits_; }
  absl::StatusOr<StepResult> Run(const StepPlan& plan) override;
  void VisitStats(StatsVisitor& visitor) const override;

  // One pass over `batch`, which has nothing greedy: raw logits [batch.logit_tokens.size(),
  // vocab_size], valid until the next call of Run or Forward. Fills `routing` unless it is null.
  // The errors of Run; an expert that cannot be had fails all of it.
  absl::StatusOr<absl::Span<const float>> Forward(const ForwardBatch& batch, Routing* routing);

  // See Transformer::ForceRouting.
  absl::Status ForceRouting(std::shared_ptr<const RoutingTrace> trace);

  // That all passes so far have spent computing experts: their products and activations.
  Duration expert_compute_time() const;

  // The bound that a step is measured against: seconds that the matrix products of one pass take
  // in a bare loop of LibTorch calls, unpadded, on the same weights and threads, when its tokens
  // go to the experts of `routing` and `num_logits` of them get logits. The fastest of
  // `repetitions` (≥ 1). FAILED_PRECONDITION on a GPU.
  absl::StatusOr<double> MeasureProducts(const Routing& routing,
                                         uint32_t num_logits,
                                         uint32_t repetitions);

 private:
  struct StepScratch;

  TorchRunner(ModelDescription description, const Limits& limits, uint32_t num_threads);
  static absl::StatusOr<std::unique_ptr<TorchRunner>> LoadUnguarded(const EngineOptions& options,
                                                                    const Logger& logger);
  // Draws what `step` asks for from the logits of its last token.
  SequenceResult Sample(const SequenceStep& step, absl::Span<const float> logits);

  const ModelDescription description_;
  const Limits limits_;
  const uint32_t num_threads_;
  const RealClock clock_;
  std::unique_ptr<const ModelConfig> config_;
  std::unique_ptr<ExpertOffload> experts_;  // owns the device that compute_ lives on
  std::unique_ptr<ModelCompute> compute_;
  CpuCompute* cpu_compute_ = nullptr;  // compute_, on the CPU
  std::unique_ptr<Transformer> transformer_;
  std::unique_ptr<TorchProfiledModel> profiled_;
  std::vector<std::pair<const char*, uint64_t>> memory_;  // bytes by pool, as planned at start
  std::unique_ptr<StepScratch> scratch_;
  std::unique_ptr<ProductBound> bound_;  // made when it is first asked for
};

}  // namespace pregate
