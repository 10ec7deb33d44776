#include "server/generation_call.h"

#include <chrono>
#include <random>
#include <utility>

#include "core/base/status_macros.h"
#include "server/convert.h"
#include "server/status.h"

namespace pregate {
namespace {

// The call's deadline on the engine's clock; nothing when the client set none.
std::optional<TimePoint> DeadlineOf(const grpc::CallbackServerContext& context,
                                    const Clock& clock) {
  const std::chrono::system_clock::time_point deadline = context.deadline();
  // gRPC's "never" is the far end of its clock.
  if (deadline - std::chrono::system_clock::now() > std::chrono::hours(24 * 365))
    return std::nullopt;
  return clock.Now() +
         std::chrono::duration_cast<Duration>(deadline - std::chrono::system_clock::now());
}

bool DeadlinePassed(const grpc::CallbackServerContext& context) {
  return std::chrono::system_clock::now() >= context.deadline();
}

// Reason and retry delay for what comes from the engine without them.
absl::Status Explained(absl::Status status) {
  if (absl::IsResourceExhausted(status) && ReasonOf(status) == "RESOURCE_EXHAUSTED") {
    return WithRetryDelay(WithReason(std::move(status), "QUEUE_FULL"), std::chrono::seconds(1));
  }
  if (absl::IsUnavailable(status) && ReasonOf(status) == "UNAVAILABLE") {
    return WithRetryDelay(WithReason(std::move(status), "DRAINING"), std::chrono::seconds(5));
  }
  return status;
}

uint64_t RandomSeed() {
  std::random_device device;
  return (static_cast<uint64_t>(device()) << 32) | device();
}

}  // namespace

GenerationCall::GenerationCall(const ServerState& state,
                               absl::string_view method,
                               grpc::CallbackServerContext& context,
                               const grpc::ByteBuffer& bytes,
                               std::function<void()> advance)
    : state_(state),
      method_(method),
      context_(context),
      bytes_(bytes),
      strand_(state.pool, std::move(advance)) {}

absl::Status GenerationCall::Begin() {
  PREGATE_ASSIGN_OR_RETURN(client_,
                           state_.authenticator.Admit(CredentialsOf(context_), Access::kInference));
  std::optional<Permit> permit = state_.permits.TryAcquire();
  if (!permit.has_value()) return TooManyCalls(state_.permits);
  permit_.emplace(*std::move(permit));
  strand_.Poke();
  return absl::OkStatus();
}

void GenerationCall::Cancel() {
  // gRPC cancels at the deadline too. The engine knows the deadline and ends the request with the
  // right status itself.
  if (DeadlinePassed(context_)) return;
  {
    MutexLock lock(mutex_);
    if (std::exchange(cancelled_, true)) return;
    if (stream_ != nullptr) stream_->Cancel();
  }
  state_.logger.Debug("client gone", {{"method", method_}});
}

absl::Status GenerationCall::Pull() {
  if (!answer_.has_value()) PREGATE_RETURN_IF_ERROR(Explained(Submit()));
  state_.stats.OnTokens(answer_->Pull());
  return absl::OkStatus();
}

absl::Status GenerationCall::Submit() {
  PREGATE_ASSIGN_OR_RETURN(Engine* const engine, state_.availability.engine());
  v1::GenerateRequest wire;
  PREGATE_RETURN_IF_ERROR(ParseMessage(std::exchange(bytes_, {}), wire));
  request_id_ = LoggableId(wire.request_id());
  PREGATE_ASSIGN_OR_RETURN(
      Generation generation,
      ConvertRequest(wire, DeadlineOf(context_, engine->clock()), RandomSeed(), *engine));
  generation.request.client = client_;
  TextStream text(
      engine->tokenizer(), generation.request.prompt_token_ids, std::move(generation.stop));
  PREGATE_ASSIGN_OR_RETURN(std::shared_ptr<ResponseStream> stream,
                           engine->Submit(std::move(generation.request)));
  answer_.emplace(std::move(stream), std::move(text));
  {
    MutexLock lock(mutex_);
    stream_ = &answer_->stream();
    if (cancelled_) stream_->Cancel();
  }
  answer_->stream().SetWake([this] { strand_.Poke(); });
  return absl::OkStatus();
}

grpc::Status GenerationCall::End(absl::Status status) {
  status = Explained(std::move(status));
  if (answer_.has_value()) {
    answer_->stream().SetWake(nullptr);
    state_.stats.OnAnswered(answer_->completion_tokens());
  }
  state_.stats.OnHandled(method_, status);
  state_.logger.Debug("request ended",
                      {{"method", method_},
                       {"request_id", request_id_},
                       {"code", absl::StatusCodeToString(status.code())}});
  if (absl::IsInternal(status)) {
    state_.logger.Error(
        "request failed",
        {{"method", method_}, {"request_id", request_id_}, {"status", status.message()}});
  }
  return ToGrpcStatus(status);
}

}  // namespace pregate
