// The server in this process over a fake model, and clients of it over real gRPC on loopback.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "core/base/mutex.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"
#include "grpcpp/support/byte_buffer.h"
#include "pregate/v1/admin.grpc.pb.h"
#include "pregate/v1/inference.grpc.pb.h"
#include "server/server.h"
#include "tests/support/fake_engine.h"

namespace pregate {

// A log that tests can wait for. Thread-safe.
class RecordedLog {
 public:
  void Add(const std::string& line);
  // Returns when a line that contains `text` has been written.
  void Await(const std::string& text);
  std::string all() const;

 private:
  mutable Mutex mutex_;
  CondVar changed_;
  std::string lines_ ABSL_GUARDED_BY(mutex_);
};

class TestServer {
 public:
  enum class Start { kReady, kLoading };

  // Of `server` its files of tokens and certificates are used.
  explicit TestServer(const FakeEngineOptions& options = {},
                      Start start = Start::kReady,
                      const ServerOptions& server = {});
  // Cuts what still runs. A gate of the runner's has to be open.
  ~TestServer();

  Server& server() { return *server_; }
  Engine& engine() { return fake_.engine(); }
  FakeEngine& fake() { return fake_; }
  FakeRunner& runner() { return fake_.runner(); }
  RecordedLog& log() { return log_; }
  const Logger& logger() const { return logger_; }

  // What main does when the model is loaded.
  void SetEngine() { server_->SetEngine(fake_.engine()); }

  std::string address() const;
  // Without TLS, as are the stubs'.
  std::shared_ptr<grpc::Channel> channel() { return channel_; }
  v1::InferenceService::Stub& inference() { return *inference_; }
  v1::AdminService::Stub& admin() { return *admin_; }
  grpc::health::v1::Health::Stub& health() { return *health_; }
  // NOT_FOUND's number is not a serving status: SERVICE_UNKNOWN then.
  grpc::health::v1::HealthCheckResponse::ServingStatus CheckHealth(const std::string& service);

  struct HttpAnswer {
    int status = 0;
    std::string content_type;
    std::string body;
  };
  HttpAnswer Get(const std::string& path) const;
  // The value of a series on /metrics, as `name{label="value"}` without the label `model`; -1 when
  // it is not there.
  double Metric(const std::string& series) const;

  // Returns when the engine has this many running and waiting.
  void AwaitLoad(uint32_t running, uint32_t waiting);

 private:
  RecordedLog log_;
  const Logger logger_;
  FakeEngine fake_;
  std::unique_ptr<Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::InferenceService::Stub> inference_;
  std::unique_ptr<v1::AdminService::Stub> admin_;
  std::unique_ptr<grpc::health::v1::Health::Stub> health_;
};

// A request for `max_tokens` greedy tokens behind `prompt`.
v1::GenerateRequest Ask(const std::string& prompt, uint32_t max_tokens);

// All that came of a Generate.
struct Streamed {
  v1::Choice choice;  // the deltas put together, and Finished
  v1::Summary summary;
  std::vector<v1::GenerateResponse> events;
  grpc::Status status;
};

// A Generate under way. Used by one thread.
class StreamingCall {
 public:
  StreamingCall(v1::InferenceService::Stub& stub, const v1::GenerateRequest& request);

  // Reads until that many tokens have come, or the end.
  const Streamed& ReadTokens(int count);
  // Reads to the end, status included.
  const Streamed& ReadAll();
  void Cancel() { context_.TryCancel(); }

 private:
  bool Read();

  grpc::ClientContext context_;
  const std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>> reader_;
  Streamed streamed_;
};

Streamed Generate(TestServer& server, const v1::GenerateRequest& request);

// Sends bytes as they are to a method such as "/pregate.v1.InferenceService/Generate".
std::pair<grpc::Status, std::string> CallRaw(TestServer& server,
                                             const std::string& method,
                                             const std::string& bytes);

// The google.rpc details of a status, those that are missing empty.
struct Details {
  std::string reason;
  std::string domain;
  bool has_retry = false;
  std::vector<std::string> fields;  // of the BadRequest
};
Details DetailsOf(const grpc::Status& status);

}  // namespace pregate
