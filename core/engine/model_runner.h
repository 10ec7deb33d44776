// What runs a step. The engine schedules; a runner computes. Implementations: TorchRunner
// (core/model), FakeRunner (tests).
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "core/base/stats.h"
#include "core/engine/step_plan.h"

namespace pregate {

// Used by one thread at a time (the engine's), but for VisitStats, which is thread-safe.
class ModelRunner {
 public:
  struct Limits {
    uint32_t vocab_size = 0;
    uint32_t max_context = 0;    // tokens of a sequence, prompt and answer
    uint32_t kv_block_size = 0;  // tokens
    uint32_t num_kv_blocks = 0;
  };

  virtual ~ModelRunner() = default;

  virtual const Limits& limits() const = 0;

  // Writes the keys and values of the plan's tokens into their blocks and draws a token for each
  // sequence that asks for one. A sequence's result depends on its own tokens, positions and
  // sampling alone: not on its neighbours, its place in the plan or how its prompt was cut into
  // steps. Does not throw. A status that is not OK fails the sequences of the plan; DATA_LOSS says
  // that this runner can run no step any more (its device is lost): the engine ends.
  virtual absl::StatusOr<StepResult> Run(const StepPlan& plan) = 0;

  virtual void VisitStats(StatsVisitor& visitor) const = 0;
};

}  // namespace pregate
