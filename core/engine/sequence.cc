#include "core/engine/sequence.h"

#include <algorithm>
#include <utility>

#include "core/base/check.h"

namespace pregate {
namespace {

std::vector<uint32_t> Sorted(std::vector<uint32_t> ids) {
  std::sort(ids.begin(), ids.end());
  return ids;
}

}  // namespace

Sequence::Sequence(uint64_t id,
                   Request request,
                   std::shared_ptr<ResponseStream> stream,
                   TimePoint submitted)
    : id_(id),
      prompt_size_(static_cast<uint32_t>(request.prompt_token_ids.size())),
      sampling_(request.sampling),
      max_tokens_(request.stopping.max_tokens),
      stop_token_ids_(Sorted(std::move(request.stopping.stop_token_ids))),
      priority_(request.priority),
      client_(std::move(request.client)),
      deadline_(request.deadline),
      stream_(std::move(stream)),
      tokens_(std::move(request.prompt_token_ids)),
      submitted_(submitted) {
  PREGATE_CHECK(prompt_size_ > 0 && max_tokens_ > 0);
  // Here, so that no step allocates; also plans point into it.
  tokens_.reserve(size_t{prompt_size_} + max_tokens_);
}

// The last token that may be generated is never fed back.
uint32_t Sequence::max_positions() const { return prompt_size_ + max_tokens_ - 1; }

void Sequence::Admit(BlockLease lease, uint32_t num_computed, Rank rank, EngineStats& stats) {
  lease_ = std::move(lease);
  num_computed_ = num_computed;
  // What it lost and finds again was counted the first time.
  const uint32_t found = std::max(num_counted_, std::min(num_computed, prompt_size_));
  stats.OnCachedPromptTokens(found - num_counted_);
  num_cached_ += found - std::exchange(num_counted_, found);
  if (!rank_.has_value()) rank_ = rank;
}

void Sequence::Preempt() {
  lease_ = BlockLease();
  num_computed_ = 0;
}

uint32_t Sequence::num_ready() const {
  return (num_computed_ < prompt_size_ ? prompt_size_ : num_tokens()) - num_computed_;
}

SequenceStep Sequence::Plan(uint32_t num_tokens, TimePoint now) {
  PREGATE_CHECK(num_tokens > 0 && num_tokens <= num_ready());
  if (!first_step_.has_value()) first_step_ = now;
  return {.sequence_id = id_,
          .token_ids = absl::MakeConstSpan(tokens_).subspan(num_computed_, num_tokens),
          .first_position = num_computed_,
          .blocks = lease_.blocks(),
          .is_prompt = num_computed_ < prompt_size_,
          .sampling = num_tokens == num_missing() ? &sampling_ : nullptr};
}

std::optional<Ending> Sequence::EndedOutside(TimePoint now) const {
  const ResponseStream::ReaderState reader = stream_->reader_state();
  if (reader == ResponseStream::ReaderState::kStopped) {
    return Ending{.status = absl::OkStatus(), .reason = FinishReason::kStop};
  }
  // Before the cancel: a transport that sees the deadline pass cancels.
  if (deadline_.has_value() && *deadline_ <= now) {
    return Ending{.status = absl::DeadlineExceededError("the request's deadline has passed"),
                  .stop_token_id = {}};
  }
  if (reader == ResponseStream::ReaderState::kCancelled) {
    return Ending{.status = absl::CancelledError("the reader cancelled the request"),
                  .stop_token_id = {}};
  }
  return std::nullopt;
}

std::optional<Ending> Sequence::Apply(const SequenceStep& step,
                                      SequenceResult result,
                                      TimePoint now,
                                      EngineStats& stats) {
  expert_usage_ += result.expert_usage;
  if (!result.status.ok()) return Ending{.status = std::move(result.status)};
  num_computed_ += static_cast<uint32_t>(step.token_ids.size());
  // What is computed again was counted the first time.
  if (step.is_prompt && num_computed_ > num_counted_) {
    stats.OnPromptTokens(num_computed_ - num_counted_);
    num_counted_ = num_computed_;
  }
  if (std::optional<Ending> ending = EndedOutside(now)) return ending;
  if (step.sampling == nullptr) return std::nullopt;

  PREGATE_CHECK(result.token.has_value(), "sequence ", id_, " got no token");
  const uint32_t token_id = result.token->token_id;
  if (std::binary_search(stop_token_ids_.begin(), stop_token_ids_.end(), token_id)) {
    return Ending{
        .status = absl::OkStatus(), .reason = FinishReason::kStop, .stop_token_id = token_id};
  }
  if (!Deliver(*std::move(result.token), now, stats)) return EndedOutside(now);
  if (tokens_.size() < size_t{prompt_size_} + max_tokens_) return std::nullopt;
  return Ending{.status = absl::OkStatus(), .reason = FinishReason::kLength};
}

// False when the reader wants no more.
bool Sequence::Deliver(GeneratedToken token, TimePoint now, EngineStats& stats) {
  const uint32_t token_id = token.token_id;
  if (!stream_->Push(std::move(token))) return false;
  tokens_.push_back(token_id);
  if (!first_token_.has_value()) {
    first_token_ = now;
    stats.OnFirstToken(now - submitted_);
  } else {
    stats.OnNextToken(now - last_token_);
  }
  last_token_ = now;
  return true;
}

Completion Sequence::Complete(Ending ending, TimePoint now, EngineStats& stats) {
  const TimePoint first_step = first_step_.value_or(now);
  const TimePoint first_token = first_token_.value_or(now);
  Completion completion{
      .status = std::move(ending.status),
      .reason = ending.reason,
      .stop_token_id = ending.stop_token_id,
      .prompt_tokens = prompt_size_,
      .cached_prompt_tokens = num_cached_,
      .completion_tokens = static_cast<uint32_t>(tokens_.size()) - prompt_size_,
      .queue_seconds = ToSeconds(first_step - submitted_),
      .prefill_seconds = ToSeconds(first_token - first_step),
      .decode_seconds = first_token_.has_value() ? ToSeconds(last_token_ - first_token) : 0,
      .expert_usage = expert_usage_};
  stats.OnFinished(completion, now - submitted_);
  return completion;
}

}  // namespace pregate
