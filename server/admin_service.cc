#include "server/admin_service.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "server/expert_admin.h"

namespace pregate {
namespace {

// Ends with a status before anything was written.
class RefusedStream final : public grpc::ServerWriteReactor<grpc::ByteBuffer> {
 public:
  explicit RefusedStream(const grpc::Status& status) { Finish(status); }

 private:
  void OnDone() override { delete this; }
};

// Answers DumpRoutingTrace: a trace piece by piece.
class TraceStream final : public grpc::ServerWriteReactor<grpc::ByteBuffer> {
 public:
  TraceStream(const ServerState& state, const ExpertOffload& experts, Permit permit)
      : state_(state), permit_(std::move(permit)) {
    // Not here, on gRPC's thread: it may be many megabytes.
    const bool queued = state.pool.TryRun([this, &experts] {
      trace_ = SerializeRoutingTrace(experts.ReadRoutingTrace());
      WriteNext();
    });
    PREGATE_CHECK(queued, "the pool has no room for a call with a permit");
  }

 private:
  static constexpr size_t kPieceBytes = size_t{64}
                                        << 10;  // of a message, field and length included
  static constexpr size_t kDataBytes = kPieceBytes - 8;

  void WriteNext() {
    if (written_ == trace_.size()) return End(absl::OkStatus());
    const size_t size = std::min(kDataBytes, trace_.size() - written_);
    v1::DumpRoutingTraceResponse piece;
    piece.set_data(trace_.data() + written_, size);
    written_ += size;
    message_ = SerializeMessage(piece);
    StartWrite(&message_);
  }
  void OnWriteDone(bool ok) override {
    if (!ok) return End(absl::CancelledError("the client is gone"));
    WriteNext();
  }
  void End(const absl::Status& status) {
    state_.stats.OnHandled("DumpRoutingTrace", status);
    Finish(ToGrpcStatus(status));
  }
  void OnDone() override { delete this; }

  const ServerState& state_;
  const Permit permit_;
  std::string trace_;
  size_t written_ = 0;
  grpc::ByteBuffer message_;  // stays until it is written
};

}  // namespace

AdminService::AdminService(const ServerState& state, Info info)
    : state_(state), info_(std::move(info)), started_(RealClock().Now()), profiler_(state) {}

std::vector<std::string> AdminService::MethodNames() {
  return {"GetServerInfo",
          "GetLoad",
          "Abort",
          "Drain",
          "GetExpertCache",
          "ResetExpertCache",
          "SetExpertCacheCapacity",
          "SetSpeculation",
          "SetMemoryStrategy",
          "DumpRoutingTrace",
          "ProfileDevice"};
}

grpc::ServerUnaryReactor* AdminService::GetServerInfo(Context* context,
                                                      const Bytes* request,
                                                      Bytes* response) {
  return RunUnary<v1::GetServerInfoRequest, v1::GetServerInfoResponse>(
      state_,
      {"GetServerInfo", Access::kAdmin, context, request, response},
      [this](const v1::GetServerInfoRequest&,
             const std::string&) -> absl::StatusOr<v1::GetServerInfoResponse> {
        v1::GetServerInfoResponse answer;
        answer.set_version(info_.version);
        answer.set_commit(info_.commit);
        answer.set_uptime_seconds(ToSeconds(RealClock().Now() - started_));
        if (const Engine* const engine = state_.availability.loaded(); engine != nullptr) {
          answer.set_model(engine->model().name);
          answer.set_dtype(engine->model().dtype);
          answer.set_device("cpu");
        }
        return answer;
      });
}

grpc::ServerUnaryReactor* AdminService::GetLoad(Context* context,
                                                const Bytes* request,
                                                Bytes* response) {
  return RunUnary<v1::GetLoadRequest, v1::GetLoadResponse>(
      state_,
      {"GetLoad", Access::kAdmin, context, request, response},
      [this](const v1::GetLoadRequest&, const std::string&) -> absl::StatusOr<v1::GetLoadResponse> {
        v1::GetLoadResponse answer;
        answer.set_max_running(info_.options.max_running);
        answer.set_max_queued(info_.options.max_queued);
        if (const Engine* const engine = state_.availability.loaded(); engine != nullptr) {
          const Engine::Load load = engine->load();
          answer.set_requests_running(load.running);
          answer.set_requests_waiting(load.waiting);
          answer.set_kv_blocks_used(load.kv_blocks_used);
          answer.set_kv_blocks_total(load.kv_blocks_total);
        }
        return answer;
      });
}

absl::StatusOr<ExpertOffload*> AdminService::Experts() const {
  // Draining keeps no operator out; before that the reason why there is no engine is the answer.
  const Engine* engine = state_.availability.loaded();
  if (engine == nullptr) {
    PREGATE_ASSIGN_OR_RETURN(engine, state_.availability.engine());
  }
  if (engine->experts() == nullptr) return NoExpertCache();
  return engine->experts();
}

template <typename Request, typename Response>
grpc::ServerUnaryReactor* AdminService::RunOnExperts(
    const UnaryCall& call,
    bool is_change,
    absl::StatusOr<Response> (*handle)(ExpertOffload& experts, const Request& request)) {
  return RunUnary<Request, Response>(
      state_,
      call,
      [this, is_change, handle, method = call.method, peer = call.context->peer()](
          const Request& message, const std::string& client) -> absl::StatusOr<Response> {
        PREGATE_ASSIGN_OR_RETURN(ExpertOffload* const experts, Experts());
        absl::StatusOr<Response> answer = handle(*experts, message);
        if (is_change) {
          LogAdminAction(state_.logger,
                         {.method = method,
                          .request = message.ShortDebugString(),
                          .client = client,
                          .peer = peer},
                         answer.status());
        }
        return answer;
      });
}

grpc::ServerUnaryReactor* AdminService::GetExpertCache(Context* context,
                                                       const Bytes* request,
                                                       Bytes* response) {
  return RunOnExperts(
      {"GetExpertCache", Access::kAdmin, context, request, response}, false, ReadExpertCache);
}

grpc::ServerUnaryReactor* AdminService::ResetExpertCache(Context* context,
                                                         const Bytes* request,
                                                         Bytes* response) {
  return RunOnExperts(
      {"ResetExpertCache", Access::kAdmin, context, request, response}, true, ResetExperts);
}

grpc::ServerUnaryReactor* AdminService::SetExpertCacheCapacity(Context* context,
                                                               const Bytes* request,
                                                               Bytes* response) {
  return RunOnExperts(
      {"SetExpertCacheCapacity", Access::kAdmin, context, request, response}, true, SetCapacity);
}

grpc::ServerUnaryReactor* AdminService::SetSpeculation(Context* context,
                                                       const Bytes* request,
                                                       Bytes* response) {
  return RunOnExperts(
      {"SetSpeculation", Access::kAdmin, context, request, response}, true, ChangeSpeculation);
}

grpc::ServerUnaryReactor* AdminService::SetMemoryStrategy(Context* context,
                                                          const Bytes* request,
                                                          Bytes* response) {
  return RunOnExperts({"SetMemoryStrategy", Access::kAdmin, context, request, response},
                      true,
                      ChangeMemoryStrategy);
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* AdminService::DumpRoutingTrace(Context* context,
                                                                           const Bytes*) {
  // Both delete themselves when they are done.
  absl::Status status = Admit(*context).status();
  const absl::StatusOr<ExpertOffload*> experts = status.ok() ? Experts() : status;
  std::optional<Permit> permit = state_.permits.TryAcquire();
  if (experts.ok() && permit.has_value())
    return new TraceStream(state_, **experts, *std::move(permit));
  status = experts.ok() ? TooManyCalls(state_.permits) : experts.status();
  state_.stats.OnHandled("DumpRoutingTrace", status);
  return new RefusedStream(ToGrpcStatus(status));
}

grpc::ServerUnaryReactor* AdminService::ProfileDevice(Context* context,
                                                      const Bytes* request,
                                                      Bytes* response) {
  return profiler_.Answer(Admit(*context), context, request, response);
}

absl::StatusOr<std::string> AdminService::Admit(const Context& context) const {
  return state_.authenticator.Admit(CredentialsOf(context), Access::kAdmin);
}

absl::Status AdminService::Unimplemented(const Context& context, absl::string_view method) const {
  absl::Status status = Admit(context).status();
  if (status.ok())
    status = absl::UnimplementedError(absl::StrCat(method, " is not offered by this version"));
  state_.stats.OnHandled(method, status);
  return status;
}

grpc::ServerUnaryReactor* AdminService::Refuse(Context* context, absl::string_view method) const {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  reactor->Finish(ToGrpcStatus(Unimplemented(*context, method)));
  return reactor;
}

}  // namespace pregate
