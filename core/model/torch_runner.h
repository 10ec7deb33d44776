// A model on LibTorch: runs the engine's steps, and shows raw logits and routing to those who
// measure a model. No LibTorch header is needed to use it.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/base/log.h"
#include "core/base/options.h"
#include "core/base/stats.h"
#include "core/engine/model_description.h"
#include "core/engine/model_runner.h"
#include "core/model/forward.h"

namespace pregate {

class Transformer;

// Used by one thread at a time, but for VisitStats, which is thread-safe.
class TorchRunner final : public ModelRunner {
 public:
  // Reads the folder `options.model` and prepares it for `options`. Errors name the file, the key
  // or tensor, what was found and what is allowed. FAILED_PRECONDITION: the device or the CPU
  // instructions asked for are not there, or the model does not fit into memory.
  static absl::StatusOr<std::unique_ptr<TorchRunner>> Load(const EngineOptions& options,
                                                           const Logger& logger);
  ~TorchRunner() override;

  const ModelDescription& description() const { return description_; }
  uint32_t max_batch_tokens() const;

  const Limits& limits() const override { return limits_; }
  absl::StatusOr<StepResult> Run(const StepPlan& plan) override;
  void VisitStats(StatsVisitor& visitor) const override;

  // One pass over `batch` without sampling: raw logits [batch.logit_tokens.size(), vocab_size],
  // valid until the next call of Run or Forward. Fills `routing` unless it is null. The errors of
  // Run.
  absl::StatusOr<absl::Span<const float>> Forward(const ForwardBatch& batch, Routing* routing);

  // The bound that a step is measured against: seconds that the matrix products of one pass take
  // in a bare loop of LibTorch calls, unpadded, on the same weights and threads, when its tokens
  // go to the experts of `routing` and `num_logits` of them get logits. The fastest of
  // `repetitions` (≥ 1).
  absl::StatusOr<double> MeasureProducts(const Routing& routing,
                                         uint32_t num_logits,
                                         uint32_t repetitions);

 private:
  struct StepScratch;

  TorchRunner(ModelDescription description,
              const Limits& limits,
              uint32_t num_threads,
              std::unique_ptr<Transformer> transformer);
  static absl::StatusOr<std::unique_ptr<TorchRunner>> LoadUnguarded(const EngineOptions& options,
                                                                    const Logger& logger);
  // Draws what `step` asks for from the logits of its last token.
  SequenceResult Sample(const SequenceStep& step, absl::Span<const float> logits);

  const ModelDescription description_;
  const Limits limits_;
  const uint32_t num_threads_;
  const std::unique_ptr<Transformer> transformer_;
  const std::vector<std::pair<const char*, uint64_t>>
      memory_;  // bytes by pool, as planned at start
  const std::unique_ptr<StepScratch> scratch_;
};

}  // namespace pregate
