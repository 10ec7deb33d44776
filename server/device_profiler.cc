#include "server/device_profiler.h"

#include <optional>
#include <string>
#include <utility>

#include "core/base/status_macros.h"
#include "server/expert_admin.h"

namespace pregate {

// Deletes itself when gRPC is done with it.
class DeviceProfiler::Call final : public grpc::ServerUnaryReactor {
 public:
  Call(DeviceProfiler& profiler, grpc::CallbackServerContext& context, grpc::ByteBuffer& response)
      : profiler_(profiler), peer_(context.peer()), response_(response) {}

  void Start(const absl::StatusOr<std::string>& client, const grpc::ByteBuffer& request) {
    if (!client.ok()) return End(client.status());
    client_ = *client;
    const absl::Status status = TryQueue(request);
    if (status.ok()) return;  // the task ends the call
    Log(status);
    End(status);
  }

 private:
  absl::Status TryQueue(const grpc::ByteBuffer& request) {
    v1::ProfileDeviceRequest message;
    PREGATE_RETURN_IF_ERROR(ParseMessage(request, message));
    PREGATE_ASSIGN_OR_RETURN(Engine* const engine, profiler_.state_.availability.engine());
    if (engine->experts() == nullptr) return NoExpertCache();
    std::optional<Permit> permit = profiler_.state_.permits.TryAcquire();
    if (!permit.has_value()) return TooManyCalls(profiler_.state_.permits);
    if (profiler_.is_busy_.exchange(true)) {
      return WithReason(absl::FailedPreconditionError(
                            "another profile of the device is under way: one at a time"),
                        "PROFILE_UNDER_WAY");
    }
    permit_.emplace(*std::move(permit));
    const bool queued = profiler_.thread_.TryRun([this, engine] { Run(*engine); });
    PREGATE_CHECK(queued, "the profiler's thread has room for one task");
    return absl::OkStatus();
  }

  void Run(Engine& engine) {
    const absl::StatusOr<Engine::Profile> profile =
        engine.ProfileDevice([this](uint32_t, uint32_t) { return CheckWanted(); });
    if (profile.ok()) response_ = SerializeMessage(ToWire(*profile));
    Log(profile.status());
    profiler_.is_busy_ = false;
    End(profile.status());
  }

  absl::Status CheckWanted() const {
    if (is_cancelled_) return absl::CancelledError("the call was cancelled");
    return profiler_.state_.availability.engine().status();
  }

  void Log(const absl::Status& status) const {
    LogAdminAction(profiler_.state_.logger,
                   {.method = "ProfileDevice", .request = "", .client = client_, .peer = peer_},
                   status);
  }

  void End(const absl::Status& status) {
    profiler_.state_.stats.OnHandled("ProfileDevice", status);
    Finish(ToGrpcStatus(status));
  }

  void OnCancel() override { is_cancelled_ = true; }
  void OnDone() override { delete this; }

  DeviceProfiler& profiler_;
  const std::string peer_;
  std::string client_;
  grpc::ByteBuffer& response_;
  std::optional<Permit> permit_;
  std::atomic<bool> is_cancelled_ = false;
};

grpc::ServerUnaryReactor* DeviceProfiler::Answer(const absl::StatusOr<std::string>& client,
                                                 grpc::CallbackServerContext* context,
                                                 const grpc::ByteBuffer* request,
                                                 grpc::ByteBuffer* response) {
  auto* const call = new Call(*this, *context, *response);
  call->Start(client, *request);
  return call;
}

}  // namespace pregate
