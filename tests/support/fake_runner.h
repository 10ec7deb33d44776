// A ModelRunner without a model: answers that any test can foretell, and a strict eye on the plans.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "core/base/mutex.h"
#include "core/base/stats.h"
#include "core/engine/model_runner.h"

namespace pregate {

// Lets steps through one by one: a runner that has one calls Pass at the start of each step, on the
// engine's thread. Thread-safe. Outlives the runner, and is open before the engine is destroyed.
class StepGate {
 public:
  void Pass();

  // The test's side. AwaitStep returns when a step waits at the gate; Release lets that many
  // through, now or later; Open lets all through from now on.
  void AwaitStep();
  void Release(size_t steps = 1);
  void Open();

 private:
  Mutex mutex_;
  CondVar changed_;
  bool open_ ABSL_GUARDED_BY(mutex_) = false;
  bool waiting_ ABSL_GUARDED_BY(mutex_) = false;
  size_t released_ ABSL_GUARDED_BY(mutex_) = 0;
};

// Draws each token as a function of what the sequence's blocks hold, which is what its own earlier
// steps, or others whose blocks it reuses, wrote there: a wrong block table, a lost or a repeated
// position changes the answer. Fails with DATA_LOSS when a plan breaks a rule of step_plan.h (all
// earlier positions are in the blocks, nobody else has a block that is written, each token is drawn
// once, the same tokens again when a sequence begins again).
class FakeRunner final : public ModelRunner {
 public:
  struct Options {
    Limits limits = {
        .vocab_size = 1000, .max_context = 256, .kv_block_size = 4, .num_kv_blocks = 1024};
    // Every sequence answers with these tokens, then with Continue's.
    std::vector<uint32_t> script;
    // Drawn tokens without a script are in [first_token_id, end_token_id); 0 = vocab_size.
    uint32_t first_token_id = 0;
    uint32_t end_token_id = 0;
    StepGate* gate = nullptr;
    // Called before each step, behind the gate; what is not OK fails it.
    std::function<absl::Status(const StepPlan&)> before_step;
    // Called for each sequence that is to get a token; what is not OK fails that sequence.
    std::function<absl::Status(const SequenceStep&)> before_token;
  };

  // A step that was run, with copies of what the plan pointed to.
  struct RecordedSequence {
    uint64_t sequence_id = 0;
    std::vector<uint32_t> token_ids;
    uint32_t first_position = 0;
    std::vector<uint32_t> blocks;
    bool is_prompt = false;
    bool draws = false;
  };
  using RecordedStep = std::vector<RecordedSequence>;

  explicit FakeRunner(Options options);

  const Limits& limits() const override { return options_.limits; }
  absl::StatusOr<StepResult> Run(const StepPlan& plan) override;
  // One counter, `fake_runner_steps_total`.
  void VisitStats(StatsVisitor& visitor) const override;

  // The tokens that a sequence of this prompt gets, were it alone and never stopped. Thread-safe.
  std::vector<GeneratedToken> Answer(absl::Span<const uint32_t> prompt,
                                     const Sampling& sampling,
                                     size_t num_tokens) const;

  // Thread-safe.
  std::vector<RecordedStep> steps() const;
  // What the steps so far have reported of a sequence's experts, whether it failed or not: invented
  // figures that differ from step to step and add up without rounding. Thread-safe.
  ExpertUsage UsageOf(uint64_t sequence_id) const;

 private:
  struct Known {
    uint32_t prompt_size = 0;         // as far as it was seen
    std::vector<uint32_t> token_ids;  // that ever were in the cache
    size_t num_drawn_behind = 0;      // of the token drawn last, all the tokens before it
  };

  absl::Status CheckTokens(const SequenceStep& step);
  absl::Status CheckCached(const SequenceStep& step);
  absl::Status Store(const SequenceStep& step);
  // The tokens of the first `count` positions.
  std::vector<uint32_t> Load(absl::Span<const uint32_t> blocks, size_t count) const;
  GeneratedToken Draw(absl::Span<const uint32_t> tokens,
                      size_t prompt_size,
                      const Sampling& sampling) const;

  const Options options_;
  std::map<uint64_t, Known> sequences_;
  std::vector<uint32_t> slots_;  // [num_kv_blocks · kv_block_size] token ids
  Counter num_steps_;

  mutable Mutex mutex_;
  std::vector<RecordedStep> steps_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace pregate
