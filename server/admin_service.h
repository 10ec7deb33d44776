// pregate.v1.AdminService: what operators ask of a running server.
#pragma once

#include <string>
#include <vector>

#include "core/base/clock.h"
#include "core/base/options.h"
#include "pregate/v1/admin.grpc.pb.h"
#include "server/device_profiler.h"
#include "server/server_state.h"

namespace pregate {

// Raw for the same reason as InferenceService, and so that what is not there yet is answered by one
// method.
using RawAdminService = v1::AdminService::WithRawCallbackMethod_GetServerInfo<
    v1::AdminService::WithRawCallbackMethod_GetLoad<
        v1::AdminService::WithRawCallbackMethod_Abort<v1::AdminService::WithRawCallbackMethod_Drain<
            v1::AdminService::WithRawCallbackMethod_GetExpertCache<
                v1::AdminService::WithRawCallbackMethod_ResetExpertCache<
                    v1::AdminService::WithRawCallbackMethod_SetExpertCacheCapacity<
                        v1::AdminService::WithRawCallbackMethod_SetSpeculation<
                            v1::AdminService::WithRawCallbackMethod_SetMemoryStrategy<
                                v1::AdminService::WithRawCallbackMethod_DumpRoutingTrace<
                                    v1::AdminService::WithRawCallbackMethod_ProfileDevice<
                                        v1::AdminService::Service>>>>>>>>>>>;

class AdminService final : public RawAdminService {
 public:
  // What GetServerInfo says beside the engine's own.
  struct Info {
    std::string version;
    std::string commit;
    EngineOptions options;
  };

  // `state` outlives the service.
  AdminService(const ServerState& state, Info info);

  static std::vector<std::string> MethodNames();

  using Context = grpc::CallbackServerContext;
  using Bytes = grpc::ByteBuffer;
  grpc::ServerUnaryReactor* GetServerInfo(Context* context,
                                          const Bytes* request,
                                          Bytes* response) override;
  grpc::ServerUnaryReactor* GetLoad(Context* context,
                                    const Bytes* request,
                                    Bytes* response) override;

  grpc::ServerUnaryReactor* Abort(Context* context, const Bytes*, Bytes*) override {
    return Refuse(context, "Abort");
  }
  grpc::ServerUnaryReactor* Drain(Context* context, const Bytes*, Bytes*) override {
    return Refuse(context, "Drain");
  }
  grpc::ServerUnaryReactor* GetExpertCache(Context* context,
                                           const Bytes* request,
                                           Bytes* response) override;
  grpc::ServerUnaryReactor* ResetExpertCache(Context* context,
                                             const Bytes* request,
                                             Bytes* response) override;
  grpc::ServerUnaryReactor* SetExpertCacheCapacity(Context* context,
                                                   const Bytes* request,
                                                   Bytes* response) override;
  grpc::ServerUnaryReactor* SetSpeculation(Context* context,
                                           const Bytes* request,
                                           Bytes* response) override;
  grpc::ServerUnaryReactor* SetMemoryStrategy(Context* context,
                                              const Bytes* request,
                                              Bytes* response) override;
  grpc::ServerWriteReactor<Bytes>* DumpRoutingTrace(Context* context,
                                                    const Bytes* request) override;
  grpc::ServerUnaryReactor* ProfileDevice(Context* context,
                                          const Bytes* request,
                                          Bytes* response) override;

 private:
  absl::StatusOr<std::string> Admit(const Context& context) const;
  // The cache of the loaded model's experts. UNAVAILABLE while it is loaded, FAILED_PRECONDITION
  // when there is none.
  absl::StatusOr<ExpertOffload*> Experts() const;
  // Answers a call on the experts and logs it when it changes something.
  template <typename Request, typename Response>
  grpc::ServerUnaryReactor* RunOnExperts(
      const UnaryCall& call,
      bool is_change,
      absl::StatusOr<Response> (*handle)(ExpertOffload& experts, const Request& request));
  // The status of a method that is not there yet, counted.
  absl::Status Unimplemented(const Context& context, absl::string_view method) const;
  grpc::ServerUnaryReactor* Refuse(Context* context, absl::string_view method) const;

  const ServerState& state_;
  const Info info_;
  const TimePoint started_;
  DeviceProfiler profiler_;
};

}  // namespace pregate
