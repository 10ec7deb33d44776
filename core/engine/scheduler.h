// Which sequences a step advances, and by how much.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/base/clock.h"
#include "core/engine/engine_stats.h"
#include "core/engine/fair_queue.h"
#include "core/engine/kv_blocks.h"
#include "core/engine/sequence.h"
#include "core/engine/step_plan.h"
#include "core/engine/step_rate.h"

namespace pregate {

// A function of what was added, applied and of the times it is told: it has no clock and no thread.
// Sequences are admitted in the order of a FairQueue, up to max_running and the KV blocks at hand,
// and not before a step has tokens for them: what comes later and goes first waits for no other's
// prompt but one. A step advances every sequence that generates by one token, then prompts, cut to
// what is left of max_batch_tokens. Since no more sequences run than a step has tokens, the first
// prompt always gets on.
//
// An admitted sequence holds the blocks of the tokens it has, and takes more as it generates. When
// none is free, the last in rank loses all of its blocks and waits to be computed again; the rank
// is the time of the first admission, a level of priority being worth FairQueue::kAgeing. So the
// first in rank is never stopped, and since ranks do not change and whoever is admitted later ranks
// behind in the end, each sequence comes to be the first: all of them end. Against thrashing, a
// sequence joins others only when, beside its own blocks, one is free for each of them.
//
// What sequences have computed others reuse (BlockPool), if their tokens begin alike.
//
// Not thread-safe.
class Scheduler {
 public:
  struct Limits {
    uint32_t max_batch_tokens = 0;  // ≥ 1
    uint32_t max_running = 0;       // ≥ 1; at most max_batch_tokens are used
    uint32_t kv_block_size = 0;     // ≥ 1
    uint32_t num_kv_blocks = 0;
  };

  // A sequence that is over and no longer known here: its completion is to be delivered.
  struct Ended {
    std::shared_ptr<ResponseStream> stream;
    Completion completion;
  };

  // `stats` outlives the scheduler.
  Scheduler(const Limits& limits, EngineStats& stats);

  // Queues a sequence whose max_positions() fit into the KV blocks.
  void Add(std::unique_ptr<Sequence> sequence);

  // Drops what the readers or the deadlines have ended, and what waits for its first step and could
  // not have its first token by its deadline even now (StepRate); admits and plans the next step,
  // which then has to be followed by Apply or FailStep. Empty only when nothing is left to do. The
  // plan stays valid until then.
  const StepPlan& Plan(TimePoint now);
  // The step of the last Plan has run; delivers its tokens.
  void Apply(StepResult result, TimePoint now);
  // The step of the last Plan has failed: so do its sequences.
  void FailStep(const absl::Status& status, TimePoint now);
  // Ends all there are.
  void EndAll(const absl::Status& status, TimePoint now);

  // Those that have ended since the last call.
  std::vector<Ended> TakeEnded();

  bool empty() const { return num_running() + num_waiting() == 0; }
  uint32_t num_running() const { return static_cast<uint32_t>(running_.size()); }
  uint32_t num_waiting() const {
    return static_cast<uint32_t>(waiting_.size() + preempted_.size());
  }
  // How many of those that wait or come could join those that run, as far as is known: none while
  // one waits for KV blocks.
  uint32_t num_places() const { return short_of_blocks_ ? 0 : max_running_ - num_running(); }
  const BlockPool& blocks() const { return blocks_; }

 private:
  void DropEnded(TimePoint now);
  Duration AtLeast(const Sequence& waiting) const;
  bool CannotMakeIt(const Sequence& waiting, TimePoint now) const;
  Ending Refusal(const Sequence& waiting, TimePoint now) const;
  void GrowOrPreempt();
  void AdmitWaiting(TimePoint now);
  bool PreemptedIsNext() const;
  void End(std::unique_ptr<Sequence>& admitted, Ending ending, TimePoint now);
  void Deliver(Sequence& sequence, Ending ending, TimePoint now);

  const uint32_t max_batch_tokens_;
  const uint32_t max_running_;
  const uint32_t kv_block_size_;
  EngineStats& stats_;
  BlockPool blocks_;  // before the sequences, which hold leases

  FairQueue waiting_;
  std::vector<std::unique_ptr<Sequence>> running_;    // by rank
  std::vector<std::unique_ptr<Sequence>> preempted_;  // by rank; of running_ once
  uint64_t num_admitted_ = 0;
  StepRate rate_;
  TimePoint planned_at_ = {};
  bool short_of_blocks_ = false;  // for the next of waiting_, at the last Plan
  StepPlan plan_;
  std::vector<size_t> planned_;  // places in running_, one per sequence of plan_
  std::vector<Ended> ended_;
};

}  // namespace pregate
