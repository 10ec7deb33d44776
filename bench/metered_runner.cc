#include "bench/metered_runner.h"

#include <numeric>
#include <utility>

namespace pregate {

double MeteredSteps::seconds() const {
  return std::accumulate(steps.begin(), steps.end(), 0.0, [](double sum, const MeteredStep& step) {
    return sum + step.seconds;
  });
}

MeteredSteps& MeteredSteps::operator+=(const MeteredSteps& other) {
  steps.insert(steps.end(), other.steps.begin(), other.steps.end());
  experts += other.experts;
  return *this;
}

void MeteredRunner::Start(uint32_t batch_size) {
  batch_size_ = batch_size;
  run_ = {};
  kind_ = Kind::kNone;
}

MeteredRun MeteredRunner::Stop() {
  ChangeKind(Kind::kNone);
  batch_size_ = 0;
  return std::exchange(run_, {});
}

void MeteredRunner::ChangeKind(Kind kind) {
  if (kind == kind_) return;
  const ExpertCounts now = CountsOf(runner_->experts().Read());
  if (kind_ == Kind::kPrefill) run_.prefill.experts += now.Since(counted_);
  if (kind_ == Kind::kDecode) run_.decode.experts += now.Since(counted_);
  counted_ = now;
  kind_ = kind;
}

absl::StatusOr<StepResult> MeteredRunner::Run(const StepPlan& plan) {
  if (batch_size_ == 0) return runner_->Run(plan);
  MeteredStep step;
  step.num_sequences = static_cast<uint32_t>(plan.sequences.size());
  for (const SequenceStep& sequence : plan.sequences) {
    if (!sequence.is_prompt) continue;
    step.num_prompt_tokens += static_cast<uint32_t>(sequence.token_ids.size());
  }
  ChangeKind(step.num_prompt_tokens > 0          ? Kind::kPrefill
             : step.num_sequences == batch_size_ ? Kind::kDecode
                                                 : Kind::kNone);
  const Duration computed = runner_->expert_compute_time();
  const TimePoint start = clock_.Now();
  absl::StatusOr<StepResult> result = runner_->Run(plan);
  step.seconds = ToSeconds(clock_.Now() - start);
  step.compute_seconds = ToSeconds(runner_->expert_compute_time() - computed);
  if (result.ok() && !result->sequences.empty()) {
    // Each sequence of a step waits as long as the step.
    step.stall_seconds = result->sequences.front().expert_usage.stall_seconds;
  }
  if (kind_ == Kind::kPrefill) run_.prefill.steps.push_back(step);
  if (kind_ == Kind::kDecode) run_.decode.steps.push_back(step);
  return result;
}

}  // namespace pregate
