#include "server/answer.h"

#include <utility>

namespace pregate {
namespace {

void SetLogprob(uint32_t token_id, float logprob, v1::TokenLogprob& wire) {
  wire.set_token_id(token_id);
  wire.set_logprob(logprob);
}

}  // namespace

Answer::Answer(std::shared_ptr<ResponseStream> stream, TextStream text)
    : stream_(std::move(stream)), text_(std::move(text)) {}

uint32_t Answer::Pull() {
  const uint32_t before = completion_tokens_;
  ResponseStream::Batch batch = stream_->Take();
  for (const GeneratedToken& token : batch.tokens) {
    if (text_.matched().has_value()) break;  // generated before the engine knew
    Add(token);
    if (text_.matched().has_value()) stream_->Stop();
  }
  if (batch.completion.has_value()) {
    completion_ = *std::move(batch.completion);
    ended_ = completion_.status.ok() ? text_.Finish() : completion_.status;
    delta_.mutable_text()->append(text_.Take());
  }
  return completion_tokens_ - before;
}

void Answer::Add(const GeneratedToken& token) {
  ++completion_tokens_;
  delta_.add_token_ids(token.token_id);
  // A model's vocabulary may be padded beyond its tokenizer's: such an id has no text.
  text_.Append(token.token_id).IgnoreError();
  delta_.mutable_text()->append(text_.Take());
  if (!token.logprob.has_value()) return;
  v1::TokenLogprob& wire = *delta_.add_logprobs();
  SetLogprob(token.token_id, token.logprob->logprob, wire);
  for (const TokenLogprob::Candidate& candidate : token.logprob->top) {
    SetLogprob(candidate.token_id, candidate.logprob, *wire.add_top());
  }
}

std::optional<v1::TokenDelta> Answer::TakeDelta() {
  if (delta_.token_ids().empty() && delta_.text().empty()) return std::nullopt;
  return std::exchange(delta_, {});
}

v1::Finished Answer::finished() const {
  v1::Finished wire;
  if (text_.matched().has_value()) {
    wire.set_reason(v1::FINISH_REASON_STOP);
    wire.set_stop(*text_.matched());
  } else if (completion_.reason == FinishReason::kStop) {
    wire.set_reason(v1::FINISH_REASON_STOP);
    if (completion_.stop_token_id.has_value()) wire.set_stop_token_id(*completion_.stop_token_id);
  } else {
    wire.set_reason(v1::FINISH_REASON_LENGTH);
  }
  return wire;
}

v1::Summary Answer::summary() const {
  v1::Summary wire;
  wire.mutable_usage()->set_prompt_tokens(completion_.prompt_tokens);
  wire.mutable_usage()->set_cached_prompt_tokens(completion_.cached_prompt_tokens);
  wire.mutable_usage()->set_completion_tokens(completion_tokens_);
  wire.mutable_timings()->set_queue_seconds(completion_.queue_seconds);
  wire.mutable_timings()->set_prefill_seconds(completion_.prefill_seconds);
  wire.mutable_timings()->set_decode_seconds(completion_.decode_seconds);
  const ExpertUsage& experts = completion_.expert_usage;
  wire.mutable_timings()->set_expert_stall_seconds(experts.stall_seconds);
  wire.mutable_expert()->set_hits(experts.hits);
  wire.mutable_expert()->set_late_hits(experts.late_hits);
  wire.mutable_expert()->set_misses(experts.misses);
  wire.mutable_expert()->set_loaded_bytes(experts.loaded_bytes);
  wire.mutable_expert()->set_reduced_precision_tokens(experts.reduced_precision_tokens);
  return wire;
}

}  // namespace pregate
