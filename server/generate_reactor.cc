#include "server/generate_reactor.h"

#include <chrono>
#include <utility>

namespace pregate {

GenerateReactor::GenerateReactor(const ServerState& state,
                                 grpc::CallbackServerContext& context,
                                 const grpc::ByteBuffer& request)
    : state_(state), call_(state, "Generate", context, request, [this] { Advance(); }) {
  if (absl::Status status = call_.Begin(); !status.ok()) Finish(call_.End(std::move(status)));
}

void GenerateReactor::OnWriteDone(bool ok) {
  // Nobody is there any more: what the engine still does for this request is in vain.
  if (!ok) call_.Cancel();
  write_done_ = true;
  call_.Poke();
}

void GenerateReactor::OnDone() {
  call_.Retire([this] { delete this; });
}

void GenerateReactor::Advance() {
  if (ended_) return;
  if (write_done_.exchange(false)) EndWrite();
  if (absl::Status status = call_.Pull(); !status.ok()) {
    ended_ = true;
    return Finish(call_.End(std::move(status)));
  }
  if (write_in_flight_) {
    if (!blocked_since_.has_value()) blocked_since_ = std::chrono::steady_clock::now();
    return;
  }
  if (WriteNext() || !call_.answer().ended().has_value()) return;
  ended_ = true;
  Finish(call_.End(*call_.answer().ended()));
}

void GenerateReactor::EndWrite() {
  write_in_flight_ = false;
  if (blocked_since_.has_value()) {
    state_.stats.OnWriteBlocked(ToSeconds(std::chrono::steady_clock::now() - *blocked_since_));
  }
  blocked_since_.reset();
}

// Starts the next write; false when there is nothing to write now.
bool GenerateReactor::WriteNext() {
  Answer& answer = call_.answer();
  v1::GenerateResponse response;
  if (std::optional<v1::TokenDelta> delta = answer.TakeDelta(); delta.has_value()) {
    *response.mutable_delta() = *std::move(delta);
    Write(response);
    return true;
  }
  if (!answer.ended().has_value() || !answer.ended()->ok()) return false;
  if (next_ == Next::kNothing) return false;
  if (next_ == Next::kFinished) {
    *response.mutable_finished() = answer.finished();
    next_ = Next::kSummary;
  } else {
    *response.mutable_summary() = answer.summary();
    next_ = Next::kNothing;
  }
  Write(response);
  return true;
}

void GenerateReactor::Write(const v1::GenerateResponse& response) {
  written_ = SerializeMessage(response);
  write_in_flight_ = true;
  StartWrite(&written_);
}

CompleteReactor::CompleteReactor(const ServerState& state,
                                 grpc::CallbackServerContext& context,
                                 const grpc::ByteBuffer& request,
                                 grpc::ByteBuffer& response)
    : call_(state, "Complete", context, request, [this] { Advance(); }), response_(response) {
  if (absl::Status status = call_.Begin(); !status.ok()) Finish(call_.End(std::move(status)));
}

void CompleteReactor::OnDone() {
  call_.Retire([this] { delete this; });
}

void CompleteReactor::Advance() {
  if (ended_) return;
  if (absl::Status status = call_.Pull(); !status.ok()) {
    ended_ = true;
    return Finish(call_.End(std::move(status)));
  }
  Answer& answer = call_.answer();
  v1::Choice& choice =
      complete_.choices().empty() ? *complete_.add_choices() : *complete_.mutable_choices(0);
  if (std::optional<v1::TokenDelta> delta = answer.TakeDelta(); delta.has_value()) {
    choice.mutable_token_ids()->MergeFrom(delta->token_ids());
    choice.mutable_text()->append(delta->text());
    choice.mutable_logprobs()->MergeFrom(delta->logprobs());
  }
  if (!answer.ended().has_value()) return;
  if (answer.ended()->ok()) {
    *choice.mutable_finished() = answer.finished();
    *complete_.mutable_summary() = answer.summary();
    response_ = SerializeMessage(complete_);
  }
  ended_ = true;
  Finish(call_.End(*answer.ended()));
}

}  // namespace pregate
