#include "server/admin_service.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"

namespace pregate {
namespace {

// Ends with a status before anything was written.
class RefusedStream final : public grpc::ServerWriteReactor<grpc::ByteBuffer> {
 public:
  explicit RefusedStream(const grpc::Status& status) { Finish(status); }

 private:
  void OnDone() override { delete this; }
};

}  // namespace

bool IsLoopbackPeer(absl::string_view peer) {
  for (const char* prefix : {"ipv4:127.", "ipv6:[::1]:", "ipv6:%5B::1%5D:", "unix:"}) {
    if (absl::StartsWith(peer, prefix)) return true;
  }
  return false;
}

AdminService::AdminService(const ServerState& state, Info info)
    : state_(state), info_(std::move(info)), started_(RealClock().Now()) {}

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
      "GetServerInfo",
      context,
      request,
      response,
      [this,
       context](const v1::GetServerInfoRequest&) -> absl::StatusOr<v1::GetServerInfoResponse> {
        PREGATE_RETURN_IF_ERROR(Authorize(*context));
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
      "GetLoad",
      context,
      request,
      response,
      [this, context](const v1::GetLoadRequest&) -> absl::StatusOr<v1::GetLoadResponse> {
        PREGATE_RETURN_IF_ERROR(Authorize(*context));
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

grpc::ServerWriteReactor<grpc::ByteBuffer>* AdminService::DumpRoutingTrace(Context* context,
                                                                           const Bytes*) {
  return new RefusedStream(
      ToGrpcStatus(Unimplemented(*context, "DumpRoutingTrace")));  // deletes itself when it is done
}

absl::Status AdminService::Authorize(const Context& context) const {
  if (IsLoopbackPeer(context.peer())) return absl::OkStatus();
  return WithReason(absl::PermissionDeniedError(
                        "admin methods are open to clients on the server's own machine only"),
                    "ADMIN_ON_LOOPBACK_ONLY");
}

absl::Status AdminService::Unimplemented(const Context& context, absl::string_view method) const {
  absl::Status status = Authorize(context);
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
