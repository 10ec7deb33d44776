#include "server/server.h"

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/server_builder.h"
#include "server/process_stats.h"
#include "server/version.h"

namespace pregate {
namespace {

constexpr int kMaxMessageBytes = 8 << 20;
// Calls beyond those that the engine runs or queues: those being tokenized, and the short ones.
constexpr uint32_t kMaxShortCalls = 256;

// For connections to close when all calls have ended: clients are asked to, and some never do.
constexpr Duration kGoodbye = std::chrono::milliseconds(100);

constexpr const char* kReadinessServices[] = {
    "", "pregate.v1.InferenceService", "pregate.v1.AdminService", "readiness"};

std::vector<std::string> AllMethodNames() {
  std::vector<std::string> names = InferenceService::MethodNames();
  for (std::string& name : AdminService::MethodNames()) names.push_back(std::move(name));
  return names;
}

size_t PoolThreads() { return std::clamp<size_t>(std::thread::hardware_concurrency() / 2, 2, 8); }

}  // namespace

absl::StatusOr<Server::Guards> Server::Guards::Create(const ServerOptions& options,
                                                      const Logger& logger) {
  Guards guards;
  if (options.tls.any()) {
    PREGATE_ASSIGN_OR_RETURN(guards.tls, ServerTls::Create(options.tls, logger));
  }
  PREGATE_ASSIGN_OR_RETURN(guards.authenticator, Authenticator::Create(options, logger));
  return guards;
}

absl::Status Server::CheckFiles(const ServerOptions& options) {
  const Logger silent(LogLevel::kError, LogFormat::kText, [](const std::string&) {});
  return Guards::Create(options, silent).status();
}

absl::StatusOr<std::unique_ptr<Server>> Server::Create(const ServerOptions& options,
                                                       const Logger& logger) {
  PREGATE_ASSIGN_OR_RETURN(Guards guards, Guards::Create(options, logger));
  std::unique_ptr<Server> server(new Server(options, std::move(guards), logger));
  PREGATE_RETURN_IF_ERROR(server->ListenForCalls());
  PREGATE_RETURN_IF_ERROR(server->ListenForHttp());
  return server;
}

Server::Server(const ServerOptions& options, Guards guards, const Logger& logger)
    : options_(options),
      logger_(logger),
      guards_(std::move(guards)),
      stats_(AllMethodNames()),
      permits_(options.engine.max_running + options.engine.max_queued + kMaxShortCalls),
      state_{.authenticator = *guards_.authenticator,
             .availability = availability_,
             .stats = stats_,
             .logger = logger,
             .permits = permits_,
             .pool = pool_},
      inference_service_(state_),
      admin_service_(state_, {.version = kVersion, .commit = kCommit, .options = options.engine}),
      metrics_(
          [this] {
            const Engine* const engine = availability_.loaded();
            return engine != nullptr ? engine->model().name : ServedModelName(options_.engine);
          },
          {[this](StatsVisitor& visitor) {
             if (const Engine* const engine = availability_.loaded(); engine != nullptr)
               engine->VisitStats(visitor);
           },
           [this](StatsVisitor& visitor) { stats_.Visit(visitor); },
           [this](StatsVisitor& visitor) { VisitOwnStats(visitor); },
           VisitProcessStats}),
      pool_("call", PoolThreads(), permits_.capacity()) {}

Server::~Server() { Stop(); }

absl::Status Server::ListenForCalls() {
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(
      options_.listen,
      guards_.tls != nullptr ? guards_.tls->MakeCredentials() : grpc::InsecureServerCredentials(),
      &port);
  // Otherwise a second server on this port would silently share it.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
  builder.RegisterService(&inference_service_);
  builder.RegisterService(&admin_service_);
  grpc_ = builder.BuildAndStart();
  if (grpc_ == nullptr || port == 0) {
    return absl::UnavailableError(
        absl::StrCat("cannot listen on ", options_.listen, ": is another server running there?"));
  }
  grpc_port_ = static_cast<uint16_t>(port);
  SetReadiness(false);
  grpc_->GetHealthCheckService()->SetServingStatus("liveness", true);
  PREGATE_ASSIGN_OR_RETURN(const Address address, ParseAddress(options_.listen));
  logger_.Info("gRPC listening", {{"address", absl::StrCat(address.host, ":", grpc_port_)}});
  return absl::OkStatus();
}

absl::Status Server::ListenForHttp() {
  PREGATE_ASSIGN_OR_RETURN(const Address address, ParseAddress(options_.http_listen));
  PREGATE_ASSIGN_OR_RETURN(http_,
                           HttpEndpoint::Create(address, metrics_, [this] { return IsReady(); }));
  logger_.Info("HTTP listening", {{"address", absl::StrCat(address.host, ":", http_->port())}});
  return absl::OkStatus();
}

void Server::SetEngine(Engine& engine) {
  availability_.SetReady(engine);
  SetReadiness(IsReady());
}

void Server::StartDraining() {
  availability_.SetDraining();
  SetReadiness(false);
}

void Server::Stop() {
  if (grpc_ == nullptr) return;
  permits_.AwaitAllFree(std::chrono::steady_clock::now() + kStopGrace);
  grpc_->Shutdown(std::chrono::system_clock::now() + kGoodbye);
  grpc_->Wait();
  grpc_ = nullptr;
  http_ = nullptr;
}

absl::Status Server::CheckHealth() {
  const Engine* const engine = availability_.loaded();
  if (engine == nullptr) return absl::OkStatus();
  const Engine::Load load = engine->load();
  const bool busy = load.running + load.waiting > 0;
  const bool moves = !busy || engine->clock().Now() - load.last_step < kStuckAfter;
  if (moves != moves_.exchange(moves)) {
    if (moves) {
      logger_.Info("engine moves again");
    } else {
      logger_.Error("engine stuck",
                    {{"seconds", ToSeconds(kStuckAfter)}, {"running", load.running}});
    }
    SetReadiness(IsReady());
  }
  return engine->health();
}

void Server::RefreshFiles() {
  if (guards_.tls != nullptr) guards_.tls->Refresh();
  guards_.authenticator->Refresh();
}

bool Server::IsReady() const {
  return availability_.state() == Availability::State::kReady && moves_;
}

void Server::SetReadiness(bool ready) {
  for (const char* service : kReadinessServices)
    grpc_->GetHealthCheckService()->SetServingStatus(service, ready);
}

void Server::VisitOwnStats(StatsVisitor& visitor) const {
  const Availability::State state = availability_.state();
  const std::pair<const char*, bool> states[] = {
      {"loading", state == Availability::State::kLoading},
      {"ready", state == Availability::State::kReady && moves_},
      {"stuck", state == Availability::State::kReady && !moves_},
      {"draining", state == Availability::State::kDraining}};
  for (const auto& [name, is_state] : states) {
    visitor.OnGauge("health_state",
                    "1 for the state that the server is in.",
                    {{"state", name}},
                    is_state ? 1 : 0);
  }
  visitor.OnGauge("build_info",
                  "Always 1; the labels tell the build.",
                  {{"version", kVersion}, {"commit", kCommit}},
                  1);
  const EngineOptions& engine = options_.engine;
  visitor.OnGauge("config_info",
                  "Always 1; the labels tell the configuration.",
                  {{"device", engine.device},
                   {"dtype", engine.dtype},
                   {"max_running", absl::StrCat(engine.max_running)},
                   {"max_queued", absl::StrCat(engine.max_queued)},
                   {"max_batch_tokens", absl::StrCat(engine.max_batch_tokens)}},
                  1);
}

}  // namespace pregate
