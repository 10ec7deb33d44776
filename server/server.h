// The daemon without its main: gRPC services, health and the HTTP endpoint around an engine.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "core/base/log.h"
#include "core/base/thread.h"
#include "core/pregate.h"
#include "grpcpp/server.h"
#include "server/admin_service.h"
#include "server/authenticator.h"
#include "server/availability.h"
#include "server/config.h"
#include "server/http_endpoint.h"
#include "server/inference_service.h"
#include "server/metrics_collector.h"
#include "server/permit.h"
#include "server/server_state.h"
#include "server/server_stats.h"
#include "server/tls.h"

namespace pregate {

// Listens from its creation on: alive, not ready, and answers UNAVAILABLE until it is given an
// engine. Thread-safe.
class Server {
 public:
  // What is wrong with the files of certificates and tokens that `options` names.
  static absl::Status CheckFiles(const ServerOptions& options);

  // UNAVAILABLE names the address that cannot be listened on; other errors are CheckFiles'.
  // `logger` outlives the server.
  static absl::StatusOr<std::unique_ptr<Server>> Create(const ServerOptions& options,
                                                        const Logger& logger);

  // Cuts what still runs.
  ~Server();

  // Ready from here on. `engine` outlives the server.
  void SetEngine(Engine& engine);

  // Not ready and takes no more work; what runs goes on (Engine::Shutdown ends that).
  void StartDraining();

  // Closes the listeners and returns when every call has been answered, or cut after kStopGrace.
  // Comes after Engine::Shutdown, else calls are cut.
  void Stop();
  static constexpr Duration kStopGrace = std::chrono::seconds(5);

  // Looks whether the engine is well and moves, and tells the health service: busy without a step
  // for kStuckAfter is not. The engine's status, when that is not OK. Called every second or so.
  absl::Status CheckHealth();
  static constexpr Duration kStuckAfter = std::chrono::seconds(60);

  // Takes over certificates and tokens that have changed. Called every second or so, by one thread.
  void RefreshFiles();

  // The ports listened on.
  uint16_t grpc_port() const { return grpc_port_; }
  uint16_t http_port() const { return http_->port(); }

 private:
  // Who lets calls in.
  struct Guards {
    static absl::StatusOr<Guards> Create(const ServerOptions& options, const Logger& logger);

    std::unique_ptr<ServerTls> tls;  // null: without TLS
    std::unique_ptr<Authenticator> authenticator;
  };

  Server(const ServerOptions& options, Guards guards, const Logger& logger);
  absl::Status ListenForCalls();
  absl::Status ListenForHttp();
  bool IsReady() const;
  void SetReadiness(bool ready);
  void VisitOwnStats(StatsVisitor& visitor) const;

  const ServerOptions options_;
  const Logger& logger_;
  const Guards guards_;

  Availability availability_;
  ServerStats stats_;
  PermitPool permits_;
  const ServerState state_;
  InferenceService inference_service_;
  AdminService admin_service_;
  MetricsCollector metrics_;
  std::atomic<bool> moves_{true};  // the engine does, as far as CheckHealth knows
  ThreadPool pool_;                // its tasks use all of the above

  std::unique_ptr<grpc::Server> grpc_;
  uint16_t grpc_port_ = 0;
  std::unique_ptr<HttpEndpoint> http_;
};

}  // namespace pregate
