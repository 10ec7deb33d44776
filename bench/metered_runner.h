// A runner that keeps account of the steps an engine runs on it.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "bench/expert_counts.h"
#include "core/base/clock.h"
#include "core/model/torch_runner.h"

namespace pregate {

struct MeteredStep {
  uint32_t num_sequences = 0;
  uint32_t num_prompt_tokens = 0;
  double seconds = 0;          // of the runner's Run
  double stall_seconds = 0;    // of them, waiting for experts
  double compute_seconds = 0;  // of them, computing experts
};

// The steps of one kind and what they asked of the experts.
struct MeteredSteps {
  std::vector<MeteredStep> steps;
  ExpertCounts experts;

  double seconds() const;
  MeteredSteps& operator+=(const MeteredSteps& other);
};

struct MeteredRun {
  MeteredSteps prefill;  // with tokens of prompts, whatever else is in them
  MeteredSteps decode;   // a token of each of all sequences; what has fewer is in neither
};

// For one thread at a time: the engine's while that has work, else the caller's.
class MeteredRunner final : public ModelRunner {
 public:
  explicit MeteredRunner(std::unique_ptr<TorchRunner> runner) : runner_(std::move(runner)) {}

  TorchRunner& runner() { return *runner_; }

  // Begins to count, of `batch_size` sequences side by side, and ends.
  void Start(uint32_t batch_size);
  MeteredRun Stop();

  const Limits& limits() const override { return runner_->limits(); }
  absl::StatusOr<StepResult> Run(const StepPlan& plan) override;
  void VisitStats(StatsVisitor& visitor) const override { runner_->VisitStats(visitor); }

 private:
  enum class Kind { kNone, kPrefill, kDecode };

  // Gives what was counted since the last call to the steps of the kind that ran meanwhile.
  void ChangeKind(Kind kind);

  const std::unique_ptr<TorchRunner> runner_;
  const RealClock clock_;
  uint32_t batch_size_ = 0;  // 0 = not counting
  Kind kind_ = Kind::kNone;
  ExpertCounts counted_;  // when kind_ began
  MeteredRun run_;
};

}  // namespace pregate
