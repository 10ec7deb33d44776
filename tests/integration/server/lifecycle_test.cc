// A server's life: loading, ready, stuck, draining, stopped; and what it tells of itself.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/test_server.h"

namespace pregate {
namespace {

using grpc::health::v1::HealthCheckResponse;
using ::testing::HasSubstr;
using ::testing::StartsWith;

const char* const kServices[] = {
    "", "pregate.v1.InferenceService", "pregate.v1.AdminService", "readiness"};

// Returns when the engine refuses new requests, which is when Shutdown has been called.
void AwaitClosed(Engine& engine) {
  Request request;
  request.prompt_token_ids = {1};
  request.stopping.max_tokens = 1;
  while (!absl::IsUnavailable(engine.Submit(request).status())) std::this_thread::yield();
}

TEST(LifecycleTest, IsAliveButNotReadyWhileItLoads) {
  TestServer server({}, TestServer::Start::kLoading);
  const Streamed refused = Generate(server, Ask("the", 1));
  EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(DetailsOf(refused.status).reason, "LOADING");
  EXPECT_TRUE(DetailsOf(refused.status).has_retry);
  for (const char* service : kServices)
    EXPECT_EQ(server.CheckHealth(service), HealthCheckResponse::NOT_SERVING) << service;
  EXPECT_EQ(server.CheckHealth("liveness"), HealthCheckResponse::SERVING);
  EXPECT_EQ(server.CheckHealth("nonsense"), HealthCheckResponse::SERVICE_UNKNOWN);
  EXPECT_EQ(server.Get("/livez").status, 200);
  EXPECT_EQ(server.Get("/readyz").status, 503);
  EXPECT_EQ(server.Metric("pregate_health_state{state=\"loading\"}"), 1);
  EXPECT_EQ(server.Metric("pregate_requests_rejected_total{reason=\"loading\"}"), 1);

  server.SetEngine();
  for (const char* service : kServices)
    EXPECT_EQ(server.CheckHealth(service), HealthCheckResponse::SERVING) << service;
  EXPECT_EQ(server.Get("/readyz").status, 200);
  EXPECT_TRUE(Generate(server, Ask("the", 1)).status.ok());
  EXPECT_EQ(server.Metric("pregate_health_state{state=\"loading\"}"), 0);
  EXPECT_EQ(server.Metric("pregate_health_state{state=\"ready\"}"), 1);
}

TEST(LifecycleTest, AWatcherSeesEveryChange) {
  TestServer server({}, TestServer::Start::kLoading);
  grpc::ClientContext context;
  grpc::health::v1::HealthCheckRequest request;
  request.set_service("readiness");
  const auto watch = server.health().Watch(&context, request);
  HealthCheckResponse seen;
  ASSERT_TRUE(watch->Read(&seen));
  EXPECT_EQ(seen.status(), HealthCheckResponse::NOT_SERVING);
  server.SetEngine();
  ASSERT_TRUE(watch->Read(&seen));
  EXPECT_EQ(seen.status(), HealthCheckResponse::SERVING);
  server.server().StartDraining();
  ASSERT_TRUE(watch->Read(&seen));
  EXPECT_EQ(seen.status(), HealthCheckResponse::NOT_SERVING);
  context.TryCancel();
}

TEST(LifecycleTest, DrainingFinishesWhatRunsAndRefusesTheRest) {
  StepGate gate;
  FakeEngineOptions options;
  options.runner.gate = &gate;
  TestServer server(options);
  StreamingCall running(server.inference(), Ask("running", 20));
  gate.Release(2);
  running.ReadTokens(2);

  server.server().StartDraining();
  const Streamed refused = Generate(server, Ask("refused", 1));
  EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(DetailsOf(refused.status).reason, "DRAINING");
  EXPECT_TRUE(DetailsOf(refused.status).has_retry);
  for (const char* service : kServices)
    EXPECT_EQ(server.CheckHealth(service), HealthCheckResponse::NOT_SERVING) << service;
  EXPECT_EQ(server.CheckHealth("liveness"), HealthCheckResponse::SERVING);
  EXPECT_EQ(server.Get("/livez").status, 200);
  EXPECT_EQ(server.Get("/readyz").status, 503);
  EXPECT_EQ(server.Metric("pregate_health_state{state=\"draining\"}"), 1);
  EXPECT_EQ(server.Metric("pregate_requests_rejected_total{reason=\"draining\"}"), 1);

  gate.Open();
  server.engine().Shutdown(server.engine().clock().Now() + std::chrono::seconds(30));
  const Streamed& streamed = running.ReadAll();
  EXPECT_TRUE(streamed.status.ok()) << streamed.status.error_message();
  EXPECT_EQ(streamed.choice.token_ids_size(), 20);
  EXPECT_EQ(streamed.choice.finished().reason(), v1::FINISH_REASON_LENGTH);
}

TEST(LifecycleTest, WhatDoesNotFinishInTimeIsCut) {
  StepGate gate;
  FakeEngineOptions options;
  options.runner.gate = &gate;
  TestServer server(options);
  StreamingCall running(server.inference(), Ask("running", 200));
  gate.Release(2);
  running.ReadTokens(2);
  gate.AwaitStep();
  server.server().StartDraining();
  const Thread shutdown("shutdown",
                        [&] { server.engine().Shutdown(server.engine().clock().Now()); });
  AwaitClosed(server.engine());
  gate.Open();
  const Streamed& streamed = running.ReadAll();
  EXPECT_EQ(streamed.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(DetailsOf(streamed.status).reason, "DRAINING");
  EXPECT_TRUE(DetailsOf(streamed.status).has_retry);
  EXPECT_FALSE(streamed.choice.has_finished());
  EXPECT_GE(streamed.choice.token_ids_size(), 2);
  EXPECT_LE(streamed.choice.token_ids_size(), 3) << "the step that was under way is the last";
}

// A client that has connected and does nothing more: it answers no ping and does not hang up.
class SilentClient {
 public:
  explicit SilentClient(uint16_t port) : socket_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
    // HTTP/2's greeting and an empty SETTINGS frame, and then the server's in return.
    const std::string greeting =
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + std::string("\0\0\0\4\0\0\0\0\0", 9);
    EXPECT_EQ(send(socket_, greeting.data(), greeting.size(), 0),
              static_cast<ssize_t>(greeting.size()));
    EXPECT_GT(ReadSome(), 0);
  }
  ~SilentClient() { close(socket_); }
  SilentClient(const SilentClient&) = delete;
  SilentClient& operator=(const SilentClient&) = delete;

  // Returns when the server has hung up.
  void AwaitEnd() {
    while (ReadSome() > 0) {
    }
  }

 private:
  ssize_t ReadSome() {
    char bytes[1024];
    return recv(socket_, bytes, sizeof(bytes), 0);
  }

  const int socket_;
};

TEST(LifecycleTest, AnIdleConnectionDoesNotKeepItFromStopping) {
  std::optional<TestServer> server(std::in_place);
  SilentClient idle(server->server().grpc_port());
  ASSERT_TRUE(Generate(*server, Ask("the", 1)).status.ok());
  const auto begin = std::chrono::steady_clock::now();
  server.reset();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, Server::kStopGrace)
      << "no call was left that needed it";
  idle.AwaitEnd();
}

TEST(LifecycleTest, BusyWithoutAStepIsNotReady) {
  StepGate gate;
  FakeEngineOptions options;
  options.runner.gate = &gate;
  TestServer server(options);
  server.fake().clock().Advance(10 * Server::kStuckAfter);
  EXPECT_TRUE(server.server().CheckHealth().ok());
  EXPECT_EQ(server.Get("/readyz").status, 200) << "idle is healthy";

  StreamingCall running(server.inference(), Ask("the", 2));
  server.AwaitLoad(1, 0);
  gate.AwaitStep();
  EXPECT_TRUE(server.server().CheckHealth().ok());
  EXPECT_EQ(server.Get("/readyz").status, 200);
  server.fake().clock().Advance(Server::kStuckAfter);
  EXPECT_TRUE(server.server().CheckHealth().ok());
  EXPECT_EQ(server.Get("/readyz").status, 503);
  EXPECT_EQ(server.CheckHealth(""), HealthCheckResponse::NOT_SERVING);
  EXPECT_EQ(server.CheckHealth("liveness"), HealthCheckResponse::SERVING);
  EXPECT_EQ(server.Metric("pregate_health_state{state=\"stuck\"}"), 1);
  EXPECT_THAT(server.log().all(), HasSubstr("engine stuck"));

  gate.Open();
  EXPECT_TRUE(running.ReadAll().status.ok());
  server.AwaitLoad(0, 0);
  EXPECT_TRUE(server.server().CheckHealth().ok());
  EXPECT_EQ(server.Get("/readyz").status, 200);
  EXPECT_EQ(server.CheckHealth(""), HealthCheckResponse::SERVING);
}

TEST(LifecycleTest, TwoServersDoNotShareAPort) {
  TestServer server;
  ServerOptions options;
  options.listen = server.address();
  options.http_listen = "127.0.0.1:0";
  const absl::Status grpc = Server::Create(options, server.logger()).status();
  EXPECT_EQ(grpc.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(grpc.message()),
              StartsWith(absl::StrCat("cannot listen on ", server.address())));
  options.listen = "127.0.0.1:0";
  options.http_listen = absl::StrCat("127.0.0.1:", server.server().http_port());
  const absl::Status http = Server::Create(options, server.logger()).status();
  EXPECT_EQ(http.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(http.message()),
              StartsWith(absl::StrCat("cannot listen on ", options.http_listen)));
  EXPECT_TRUE(Generate(server, Ask("the", 1)).status.ok());
}

TEST(LifecycleTest, TellsWhereItListens) {
  TestServer server;
  EXPECT_THAT(server.log().all(),
              HasSubstr(absl::StrCat("gRPC listening address=", server.address())));
  EXPECT_THAT(
      server.log().all(),
      HasSubstr(absl::StrCat("HTTP listening address=127.0.0.1:", server.server().http_port())));
}

TEST(ReflectionTest, ListsTheServices) {
  TestServer server;
  // A ServerReflectionRequest whose field 7, list_services, is "*".
  const auto [status, answer] = CallRaw(
      server, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "\x3a\x01*");
  ASSERT_TRUE(status.ok()) << status.error_message();
  for (const char* service : {"pregate.v1.InferenceService",
                              "pregate.v1.AdminService",
                              "grpc.health.v1.Health",
                              "grpc.reflection.v1alpha.ServerReflection"})
    EXPECT_THAT(answer, HasSubstr(service));
}

TEST(AdminTest, TellsOfServerAndLoad) {
  FakeEngineOptions options;
  options.engine.max_running = 5;
  options.engine.max_queued = 6;
  TestServer server(options);
  grpc::ClientContext info_context;
  v1::GetServerInfoResponse info;
  ASSERT_TRUE(server.admin().GetServerInfo(&info_context, {}, &info).ok());
  EXPECT_EQ(info.version(), "0.1.0");
  EXPECT_EQ(info.model(), "fake");
  EXPECT_EQ(info.device(), "cpu");
  EXPECT_EQ(info.dtype(), "float32");
  EXPECT_GE(info.uptime_seconds(), 0);
  grpc::ClientContext load_context;
  v1::GetLoadResponse load;
  ASSERT_TRUE(server.admin().GetLoad(&load_context, {}, &load).ok());
  EXPECT_EQ(load.max_running(), 5u);
  EXPECT_EQ(load.max_queued(), 6u);
  EXPECT_EQ(load.requests_running(), 0u);
  EXPECT_EQ(load.kv_blocks_used(), 0u);
  EXPECT_EQ(load.kv_blocks_total(), 1024u);
}

TEST(AdminTest, TellsOfItselfWhileItLoads) {
  TestServer server({}, TestServer::Start::kLoading);
  grpc::ClientContext context;
  v1::GetServerInfoResponse info;
  ASSERT_TRUE(server.admin().GetServerInfo(&context, {}, &info).ok());
  EXPECT_EQ(info.model(), "");
}

TEST(AdminTest, SaysWhatThereIsNotYet) {
  TestServer server;
  for (const char* method : {"Abort", "Drain"}) {
    const auto [status, answer] =
        CallRaw(server, absl::StrCat("/pregate.v1.AdminService/", method), "");
    EXPECT_EQ(status.error_code(), grpc::StatusCode::UNIMPLEMENTED) << method;
    EXPECT_EQ(status.error_message(), absl::StrCat(method, " is not offered by this version"));
    EXPECT_EQ(DetailsOf(status).reason, "UNIMPLEMENTED");
    EXPECT_EQ(DetailsOf(status).domain, "pregate");
  }
}

}  // namespace
}  // namespace pregate
