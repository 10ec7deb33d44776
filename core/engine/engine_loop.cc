#include "core/engine/engine_loop.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace pregate {

EngineLoop::EngineLoop(const Options& options,
                       ModelRunner& runner,
                       const Clock& clock,
                       const Logger& logger)
    : max_queued_(options.max_queued),
      runner_(runner),
      clock_(clock),
      logger_(logger),
      scheduler_({.max_batch_tokens = options.max_batch_tokens,
                  .max_running = options.max_running,
                  .kv_block_size = runner.limits().kv_block_size,
                  .num_kv_blocks = runner.limits().num_kv_blocks},
                 stats_),
      room_(options.max_queued + scheduler_.num_places()),
      load_{.kv_blocks_total = runner.limits().num_kv_blocks, .last_step = clock.Now()},
      thread_("engine", [this] { Run(); }) {}

EngineLoop::~EngineLoop() { Shutdown(TimePoint::min()); }

absl::StatusOr<std::shared_ptr<ResponseStream>> EngineLoop::Submit(Request request) {
  auto stream = std::make_shared<ResponseStream>();
  auto sequence = std::make_unique<Sequence>(
      next_id_.fetch_add(1, std::memory_order_relaxed), std::move(request), stream, clock_.Now());
  {
    MutexLock lock(mutex_);
    if (!health_.ok()) return health_;
    if (closed_) return absl::UnavailableError("the engine is shutting down");
    if (submitted_.size() >= room_) {
      return absl::ResourceExhaustedError(
          absl::StrCat("the queue is full: at most ", max_queued_, " requests wait for a place"));
    }
    submitted_.push_back(std::move(sequence));
  }
  changed_.NotifyAll();
  return stream;
}

void EngineLoop::Shutdown(TimePoint deadline) {
  MutexLock lock(mutex_);
  closed_ = true;
  cut_at_ = std::min(cut_at_, deadline);
  changed_.NotifyAll();
  while (!ended_) changed_.Wait(mutex_);
}

EngineLoad EngineLoop::load() const {
  MutexLock lock(mutex_);
  EngineLoad load = load_;
  load.waiting += static_cast<uint32_t>(submitted_.size());
  return load;
}

absl::Status EngineLoop::health() const {
  MutexLock lock(mutex_);
  return health_;
}

void EngineLoop::VisitStats(StatsVisitor& visitor) const {
  stats_.Visit(load(), visitor);
  runner_.VisitStats(visitor);
}

void EngineLoop::Run() {
  while (TakeSubmitted()) Step();
  MutexLock lock(mutex_);
  ended_ = true;
  changed_.NotifyAll();
}

// Hands the scheduler what was submitted; waits while there is nothing to do. False when closed and
// everything has ended.
bool EngineLoop::TakeSubmitted() {
  std::vector<std::unique_ptr<Sequence>> taken;
  {
    MutexLock lock(mutex_);
    const bool idle = scheduler_.empty();
    while (idle && submitted_.empty() && !closed_) changed_.Wait(mutex_);
    if (idle && submitted_.empty()) return false;
    if (idle) load_.last_step = clock_.Now();
    taken.swap(submitted_);
    // Until Settle knows better, they wait: neither the load nor the room forgets them.
    const auto count = static_cast<uint32_t>(taken.size());
    load_.waiting += count;
    room_ -= std::min(room_, count);
  }
  for (std::unique_ptr<Sequence>& sequence : taken) scheduler_.Add(std::move(sequence));
  return true;
}

void EngineLoop::Step() {
  const TimePoint start = clock_.Now();
  if (start >= cut_at()) {
    scheduler_.EndAll(absl::UnavailableError("the engine is shutting down"), start);
    return Settle();
  }
  const StepPlan& plan = scheduler_.Plan(start);
  Settle();
  if (plan.sequences.empty()) return;
  absl::StatusOr<StepResult> result = runner_.Run(plan);
  const TimePoint end = clock_.Now();
  stats_.OnStep(plan.phase(), plan.sequences.size(), plan.num_tokens(), end - start);
  {
    MutexLock lock(mutex_);
    load_.last_step = end;
  }
  if (result.ok()) {
    scheduler_.Apply(*std::move(result), end);
  } else {
    OnStepFailed(result.status(), end);
  }
  Settle();
}

void EngineLoop::OnStepFailed(const absl::Status& status, TimePoint now) {
  if (status.code() != absl::StatusCode::kDataLoss) {
    logger_.Error("step failed", {{"status", status.ToString()}});
    return scheduler_.FailStep(status, now);
  }
  logger_.Error("engine stopped", {{"status", status.ToString()}});
  const absl::Status health =
      absl::InternalError(absl::StrCat("the engine cannot go on: ", status.message()));
  std::vector<std::unique_ptr<Sequence>> taken;
  {
    MutexLock lock(mutex_);
    health_ = health;  // from here on nothing is submitted
    taken.swap(submitted_);
  }
  for (std::unique_ptr<Sequence>& sequence : taken) scheduler_.Add(std::move(sequence));
  scheduler_.EndAll(health, now);
}

// Makes the scheduler's state known, then ends the streams of those that are over: a reader that
// sees its completion finds its place free and its request counted.
void EngineLoop::Settle() {
  {
    MutexLock lock(mutex_);
    load_.running = scheduler_.num_running();
    load_.waiting = scheduler_.num_waiting();
    load_.kv_blocks_used = scheduler_.blocks().num_used();
    load_.kv_blocks_cached = scheduler_.blocks().num_cached();
    const uint32_t capacity = max_queued_ + scheduler_.num_places();
    room_ = capacity - std::min(capacity, load_.waiting);
  }
  for (Scheduler::Ended& ended : scheduler_.TakeEnded()) {
    ended.stream->Finish(std::move(ended.completion));
  }
}

TimePoint EngineLoop::cut_at() const {
  MutexLock lock(mutex_);
  return cut_at_;
}

}  // namespace pregate
