#include "core/engine/scheduler.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/base/check.h"

namespace pregate {
namespace {

uint32_t BlocksFor(uint32_t positions, uint32_t block_size) {
  return (positions + block_size - 1) / block_size;
}

void InsertByRank(std::unique_ptr<Sequence> sequence,
                  std::vector<std::unique_ptr<Sequence>>& sequences) {
  const auto before = [](const auto& a, const auto& b) { return a->rank() < b->rank(); };
  sequences.insert(std::upper_bound(sequences.begin(), sequences.end(), sequence, before),
                   std::move(sequence));
}

}  // namespace

Scheduler::Scheduler(const Limits& limits, EngineStats& stats)
    : max_batch_tokens_(limits.max_batch_tokens),
      max_running_(std::min(limits.max_running, limits.max_batch_tokens)),
      kv_block_size_(limits.kv_block_size),
      stats_(stats),
      blocks_(limits.num_kv_blocks, limits.kv_block_size),
      rate_(limits.max_batch_tokens) {
  PREGATE_CHECK(max_running_ > 0 && kv_block_size_ > 0);
  running_.reserve(max_running_);
  planned_.reserve(max_running_);
  plan_.sequences.reserve(max_running_);
}

void Scheduler::Add(std::unique_ptr<Sequence> sequence) {
  PREGATE_CHECK(BlocksFor(sequence->max_positions(), kv_block_size_) <= blocks_.num_blocks());
  waiting_.Add(std::move(sequence));
}

const StepPlan& Scheduler::Plan(TimePoint now) {
  planned_at_ = now;
  DropEnded(now);
  GrowOrPreempt();
  AdmitWaiting(now);
  plan_.sequences.clear();
  planned_.clear();
  uint32_t budget = max_batch_tokens_;
  for (const bool generating : {true, false}) {
    for (size_t i = 0; i < running_.size() && budget > 0; ++i) {
      Sequence& sequence = *running_[i];
      if (sequence.is_generating() != generating) continue;
      const uint32_t num_tokens = std::min(budget, sequence.num_ready());
      plan_.sequences.push_back(sequence.Plan(num_tokens, now));
      planned_.push_back(i);
      budget -= num_tokens;
    }
  }
  return plan_;
}

void Scheduler::Apply(StepResult result, TimePoint now) {
  PREGATE_CHECK(result.sequences.size() == planned_.size(),
                result.sequences.size(),
                " results for ",
                planned_.size(),
                " sequences");
  rate_.OnStep(plan_.num_tokens(), now - planned_at_);
  for (size_t i = 0; i < planned_.size(); ++i) {
    std::unique_ptr<Sequence>& sequence = running_[planned_[i]];
    if (plan_.sequences[i].sampling != nullptr) waiting_.OnGenerated(*sequence);
    std::optional<Ending> ending =
        sequence->Apply(plan_.sequences[i], std::move(result.sequences[i]), now, stats_);
    blocks_.Publish(sequence->lease(), sequence->computed());
    if (ending.has_value()) End(sequence, *std::move(ending), now);
  }
  std::erase(running_, nullptr);
}

void Scheduler::FailStep(const absl::Status& status, TimePoint now) {
  for (const size_t i : planned_) End(running_[i], {.status = status}, now);
  std::erase(running_, nullptr);
}

void Scheduler::EndAll(const absl::Status& status, TimePoint now) {
  for (auto* admitted : {&running_, &preempted_}) {
    for (auto& sequence : *admitted) End(sequence, {.status = status}, now);
    admitted->clear();
  }
  const auto all = [](const Sequence&) { return true; };
  for (auto& sequence : waiting_.TakeIf(all)) Deliver(*sequence, {.status = status}, now);
}

std::vector<Scheduler::Ended> Scheduler::TakeEnded() { return std::exchange(ended_, {}); }

void Scheduler::DropEnded(TimePoint now) {
  for (auto* admitted : {&running_, &preempted_}) {
    for (auto& sequence : *admitted) {
      std::optional<Ending> ending = sequence->EndedOutside(now);
      if (ending.has_value()) End(sequence, *std::move(ending), now);
    }
    std::erase(*admitted, nullptr);
  }
  const auto is_over = [&](const Sequence& sequence) {
    return sequence.EndedOutside(now).has_value() || CannotMakeIt(sequence, now);
  };
  bool refused = false;
  for (auto& sequence : waiting_.TakeIf(is_over)) {
    std::optional<Ending> ending = sequence->EndedOutside(now);
    refused |= !ending.has_value();
    Deliver(*sequence, ending.has_value() ? *std::move(ending) : Refusal(*sequence, now), now);
  }
  if (refused) rate_.OnRefusal();
}

// From now on to its first token.
Duration Scheduler::AtLeast(const Sequence& waiting) const {
  return rate_.AtLeast(waiting.prompt_size() - blocks_.NumReusable(waiting.tokens()));
}

bool Scheduler::CannotMakeIt(const Sequence& waiting, TimePoint now) const {
  if (!waiting.deadline().has_value()) return false;
  const Duration left = *waiting.deadline() - now;
  // Few get as far as to be looked up.
  return rate_.AtLeast(waiting.prompt_size()) > left && AtLeast(waiting) > left;
}

Ending Scheduler::Refusal(const Sequence& waiting, TimePoint now) const {
  return {.status = absl::DeadlineExceededError(absl::StrFormat(
              "the request's deadline cannot be met: a prompt of %d tokens takes at least %.3g s "
              "to the first token, and %.3g s are left",
              waiting.prompt_size(),
              ToSeconds(AtLeast(waiting)),
              ToSeconds(*waiting.deadline() - now))),
          .stop_token_id = {}};
}

// Leaves in running_ those that have blocks for all of their tokens.
void Scheduler::GrowOrPreempt() {
  for (size_t i = 0; i < running_.size(); ++i) {
    Sequence& sequence = *running_[i];
    while (i < running_.size() && !blocks_.Extend(sequence.lease(), sequence.num_tokens())) {
      // The last in rank, which is at worst this one.
      running_.back()->Preempt();
      stats_.OnPreemption();
      InsertByRank(std::move(running_.back()), preempted_);
      running_.pop_back();
    }
  }
}

void Scheduler::AdmitWaiting(TimePoint now) {
  uint32_t budget = max_batch_tokens_;
  for (const auto& sequence : running_) budget -= std::min(budget, sequence->num_ready());
  short_of_blocks_ = false;
  while (budget > 0 && running_.size() < max_running_ && num_waiting() > 0) {
    const bool resumes = PreemptedIsNext();
    const Sequence& next = resumes ? *preempted_.front() : *waiting_.Next();
    std::optional<BlockLease> lease =
        blocks_.Reserve(next.tokens(), static_cast<uint32_t>(running_.size()));
    short_of_blocks_ = !lease.has_value();
    if (short_of_blocks_) return;
    std::unique_ptr<Sequence> sequence;
    if (resumes) {
      sequence = std::move(preempted_.front());
      preempted_.erase(preempted_.begin());
    } else {
      sequence = waiting_.Pop(now);
    }
    const uint32_t num_computed = lease->num_published() * kv_block_size_;
    const Rank rank = {FairQueue::RankOf(now, sequence->priority()), num_admitted_++};
    sequence->Admit(*std::move(lease), num_computed, rank, stats_);
    budget -= std::min(budget, sequence->num_ready());
    InsertByRank(std::move(sequence), running_);
  }
}

// Whether it or one of waiting_ is to be admitted first; one of them waits.
bool Scheduler::PreemptedIsNext() const {
  if (preempted_.empty() || waiting_.Next() == nullptr) return !preempted_.empty();
  return preempted_.front()->rank().first <= waiting_.NextRank();
}

// Leaves nullptr in `admitted`: its blocks are free from here on.
void Scheduler::End(std::unique_ptr<Sequence>& admitted, Ending ending, TimePoint now) {
  waiting_.OnEnded(*admitted);
  Deliver(*admitted, std::move(ending), now);
  admitted.reset();
}

void Scheduler::Deliver(Sequence& sequence, Ending ending, TimePoint now) {
  ended_.push_back({.stream = sequence.stream(),
                    .completion = sequence.Complete(std::move(ending), now, stats_)});
}

}  // namespace pregate
