#include "tests/support/fake_runner.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/check.h"
#include "core/base/status_macros.h"

namespace pregate {
namespace {

// SplitMix64's finalizer (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators").
uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

absl::Status Broken(const SequenceStep& step, absl::string_view what) {
  return absl::DataLossError(absl::StrCat("plan of sequence ", step.sequence_id, ": ", what));
}

FakeRunner::RecordedStep Record(const StepPlan& plan) {
  FakeRunner::RecordedStep recorded;
  for (const SequenceStep& step : plan.sequences) {
    recorded.push_back({.sequence_id = step.sequence_id,
                        .token_ids = {step.token_ids.begin(), step.token_ids.end()},
                        .first_position = step.first_position,
                        .blocks = {step.blocks.begin(), step.blocks.end()},
                        .is_prompt = step.is_prompt,
                        .draws = step.sampling != nullptr});
  }
  return recorded;
}

absl::Status CheckDistinct(const StepPlan& plan, uint32_t block_size) {
  std::set<uint64_t> ids;
  std::map<uint32_t, int> places;
  for (const SequenceStep& step : plan.sequences) {
    if (!ids.insert(step.sequence_id).second) return Broken(step, "planned twice");
    for (const uint32_t block : step.blocks) ++places[block];
  }
  for (const SequenceStep& step : plan.sequences) {
    for (size_t i = step.first_position / block_size; i < step.blocks.size(); ++i) {
      if (places[step.blocks[i]] > 1) return Broken(step, "writes a block that has two places");
    }
  }
  return absl::OkStatus();
}

ExpertUsage InventUsage(uint32_t first_position, size_t num_tokens) {
  const uint64_t misses = first_position % 3;
  return {.hits = num_tokens,
          .late_hits = first_position % 2,
          .misses = misses,
          .loaded_bytes = 1000 * misses,
          .stall_seconds = 0.25 * static_cast<double>(misses)};
}

}  // namespace

void StepGate::Pass() {
  MutexLock lock(mutex_);
  waiting_ = true;
  changed_.NotifyAll();
  while (!open_ && released_ == 0) changed_.Wait(mutex_);
  if (!open_) --released_;
  waiting_ = false;
}

void StepGate::AwaitStep() {
  MutexLock lock(mutex_);
  while (!waiting_ || released_ > 0) changed_.Wait(mutex_);
}

void StepGate::Release(size_t steps) {
  MutexLock lock(mutex_);
  released_ += steps;
  changed_.NotifyAll();
}

void StepGate::Open() {
  MutexLock lock(mutex_);
  open_ = true;
  changed_.NotifyAll();
}

FakeRunner::FakeRunner(Options options)
    : options_([&options] {
        if (options.end_token_id == 0) options.end_token_id = options.limits.vocab_size;
        PREGATE_CHECK(options.first_token_id < options.end_token_id &&
                      options.end_token_id <= options.limits.vocab_size);
        return std::move(options);
      }()),
      slots_(size_t{options_.limits.num_kv_blocks} * options_.limits.kv_block_size) {}

absl::StatusOr<StepResult> FakeRunner::Run(const StepPlan& plan) {
  if (options_.gate != nullptr) options_.gate->Pass();
  num_steps_.Add();
  {
    MutexLock lock(mutex_);
    steps_.push_back(Record(plan));
  }
  if (options_.before_step) PREGATE_RETURN_IF_ERROR(options_.before_step(plan));
  if (plan.sequences.empty()) return absl::DataLossError("an empty plan");
  PREGATE_RETURN_IF_ERROR(CheckDistinct(plan, options_.limits.kv_block_size));

  StepResult result;
  for (const SequenceStep& step : plan.sequences) {
    PREGATE_RETURN_IF_ERROR(Store(step));
    SequenceResult& sequence = result.sequences.emplace_back();
    sequence.expert_usage = InventUsage(step.first_position, step.token_ids.size());
    if (step.sampling == nullptr) continue;
    if (options_.before_token) sequence.status = options_.before_token(step);
    if (!sequence.status.ok()) continue;
    sequence.token = Draw(Load(step.blocks, step.first_position + step.token_ids.size()),
                          sequences_.at(step.sequence_id).prompt_size,
                          *step.sampling);
  }
  return result;
}

// Against what is known of the sequence, and adds to it.
absl::Status FakeRunner::CheckTokens(const SequenceStep& step) {
  Known& known = sequences_[step.sequence_id];
  const size_t end = size_t{step.first_position} + step.token_ids.size();
  if (step.token_ids.empty()) return Broken(step, "no tokens");
  if (end > options_.limits.max_context) return Broken(step, "beyond the context");
  for (size_t i = 0; i < step.token_ids.size(); ++i) {
    const size_t position = step.first_position + i;
    const uint32_t token_id = step.token_ids[i];
    if (token_id >= options_.limits.vocab_size) return Broken(step, "no such token");
    const bool is_new = position == known.token_ids.size();
    if (is_new) known.token_ids.push_back(token_id);
    if (known.token_ids[position] != token_id) return Broken(step, "another token than before");
    if (step.is_prompt && is_new && known.prompt_size == position) ++known.prompt_size;
    if (step.is_prompt != (position < known.prompt_size)) {
      return Broken(step, "takes a prompt's tokens for generated ones, or these for a prompt's");
    }
    if (!step.is_prompt && is_new && step.sampling == nullptr) {
      return Broken(step, "a token was generated and the next one is not drawn");
    }
  }
  if (step.sampling == nullptr) return absl::OkStatus();
  if (end < known.token_ids.size() || known.num_drawn_behind >= end) {
    return Broken(step, "a token is drawn twice");
  }
  known.num_drawn_behind = end;
  return absl::OkStatus();
}

// That what comes before the step is in its blocks. What was never seen of the sequence is a prompt
// that others have computed.
absl::Status FakeRunner::CheckCached(const SequenceStep& step) {
  const uint32_t block_size = options_.limits.kv_block_size;
  Known& known = sequences_[step.sequence_id];
  const size_t end = size_t{step.first_position} + step.token_ids.size();
  if (end > step.blocks.size() * block_size) return Broken(step, "beyond its blocks");
  for (const uint32_t block : step.blocks) {
    if (block >= options_.limits.num_kv_blocks) {
      return Broken(step, absl::StrCat("no block ", block));
    }
  }
  const std::vector<uint32_t> cached = Load(step.blocks, step.first_position);
  if (known.token_ids.size() < cached.size()) {
    if (known.prompt_size < known.token_ids.size()) return Broken(step, "positions with a gap");
    known.token_ids.insert(known.token_ids.end(),
                           cached.begin() + static_cast<ptrdiff_t>(known.token_ids.size()),
                           cached.end());
    known.prompt_size = step.first_position;
  }
  if (!std::equal(cached.begin(), cached.end(), known.token_ids.begin())) {
    return Broken(step, "its blocks hold other tokens than its own");
  }
  return absl::OkStatus();
}

absl::Status FakeRunner::Store(const SequenceStep& step) {
  PREGATE_RETURN_IF_ERROR(CheckCached(step));
  PREGATE_RETURN_IF_ERROR(CheckTokens(step));
  const uint32_t block_size = options_.limits.kv_block_size;
  for (size_t i = 0; i < step.token_ids.size(); ++i) {
    const size_t position = step.first_position + i;
    slots_[size_t{step.blocks[position / block_size]} * block_size + position % block_size] =
        step.token_ids[i];
  }
  return absl::OkStatus();
}

std::vector<uint32_t> FakeRunner::Load(absl::Span<const uint32_t> blocks, size_t count) const {
  const uint32_t block_size = options_.limits.kv_block_size;
  std::vector<uint32_t> tokens(count);
  for (size_t i = 0; i < count; ++i) {
    tokens[i] = slots_[size_t{blocks[i / block_size]} * block_size + i % block_size];
  }
  return tokens;
}

GeneratedToken FakeRunner::Draw(absl::Span<const uint32_t> tokens,
                                size_t prompt_size,
                                const Sampling& sampling) const {
  uint64_t hash = 0;
  for (const uint32_t token : tokens) hash = Mix(hash ^ token);
  if (sampling.temperature > 0) hash = Mix(hash ^ sampling.seed);
  const uint32_t range = options_.end_token_id - options_.first_token_id;
  const size_t index = tokens.size() - prompt_size;
  const uint32_t token_id = index < options_.script.size()
                                ? options_.script[index]
                                : options_.first_token_id + static_cast<uint32_t>(hash % range);
  GeneratedToken drawn{.token_id = token_id};
  if (sampling.logprobs.has_value()) {
    const float logprob = -static_cast<float>(hash >> 32) / 0x1p32f;  // in (-1, 0]
    drawn.logprob = TokenLogprob{.logprob = logprob};
    // The chosen token is the most likely; the next ids follow it, each a nat less likely.
    for (uint32_t i = 0; i < *sampling.logprobs; ++i) {
      drawn.logprob->top.push_back({.token_id = (token_id + i) % options_.limits.vocab_size,
                                    .logprob = logprob - static_cast<float>(i)});
    }
  }
  return drawn;
}

std::vector<GeneratedToken> FakeRunner::Answer(absl::Span<const uint32_t> prompt,
                                               const Sampling& sampling,
                                               size_t num_tokens) const {
  std::vector<uint32_t> tokens(prompt.begin(), prompt.end());
  std::vector<GeneratedToken> answer;
  while (answer.size() < num_tokens) {
    answer.push_back(Draw(tokens, prompt.size(), sampling));
    tokens.push_back(answer.back().token_id);
  }
  return answer;
}

void FakeRunner::VisitStats(StatsVisitor& visitor) const {
  visitor.OnCounter("fake_runner_steps_total", "Steps run.", {}, num_steps_.value());
}

std::vector<FakeRunner::RecordedStep> FakeRunner::steps() const {
  MutexLock lock(mutex_);
  return steps_;
}

ExpertUsage FakeRunner::UsageOf(uint64_t sequence_id) const {
  ExpertUsage usage;
  MutexLock lock(mutex_);
  for (const RecordedStep& step : steps_) {
    for (const RecordedSequence& part : step) {
      if (part.sequence_id == sequence_id)
        usage += InventUsage(part.first_position, part.token_ids.size());
    }
  }
  return usage;
}

}  // namespace pregate
