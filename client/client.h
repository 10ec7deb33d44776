// Calls to a pregated: typed, blocking, each failure put into words.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "core/base/mutex.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "grpcpp/channel.h"
#include "pregate/v1/admin.grpc.pb.h"
#include "pregate/v1/inference.grpc.pb.h"

namespace pregate {

// Contents of files in PEM form.
struct ClientTls {
  std::string authorities;  // whom to believe; "" = the system's
  std::string certificate;  // the client's own, with its key; "" = none
  std::string key;
};

struct ClientOptions {
  std::string server = "127.0.0.1:50051";  // as CheckServerAddress takes it
  // Of each call. Unset: 30 s for an answer that comes whole, none for a stream.
  std::optional<absl::Duration> deadline = std::nullopt;
  std::optional<ClientTls> tls = std::nullopt;  // none: no TLS
  std::string token = {};                       // shown with each call; "" = none
};

// HOST:PORT or [IPV6]:PORT; anything else is INVALID_ARGUMENT.
absl::Status CheckServerAddress(absl::string_view server);

// Whether the address, which has passed CheckServerAddress, is on this machine for sure.
bool IsLoopbackServer(absl::string_view server);

// Stops a stream or a wait from another thread. Thread-safe.
class Cancellation {
 public:
  // Cancels the call that is running, else the next one. False when none was running.
  bool Cancel();
  // Forgets a Cancel.
  void Reset();
  bool cancelled();

 private:
  friend class Client;
  void Attach(grpc::ClientContext* context);  // nullptr: the call is over

  Mutex mutex_;
  grpc::ClientContext* context_ ABSL_GUARDED_BY(mutex_) = nullptr;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
};

// Connects when first used and again when a connection is lost. A failed call returns the status's
// code, and as its message one line for people: what happened, the details that the server sent,
// and what to do next. A loopback address is never looked for behind a proxy. Thread-safe.
class Client {
 public:
  using ServingStatus = grpc::health::v1::HealthCheckResponse::ServingStatus;

  // `options.server` has passed CheckServerAddress.
  explicit Client(const ClientOptions& options);

  // Calls `on_event` on this thread for each event as it arrives. An error from it cancels the call
  // and is returned. CANCELLED, "interrupted", after `cancellation`.
  absl::Status Generate(const v1::GenerateRequest& request,
                        Cancellation& cancellation,
                        absl::FunctionRef<absl::Status(const v1::GenerateResponse&)> on_event);

  absl::StatusOr<v1::TokenizeResponse> Tokenize(const v1::TokenizeRequest& request);
  absl::StatusOr<v1::DetokenizeResponse> Detokenize(const v1::DetokenizeRequest& request);
  absl::StatusOr<v1::ListModelsResponse> ListModels();
  absl::StatusOr<v1::Model> GetModel(const std::string& name);
  absl::StatusOr<v1::GetServerInfoResponse> GetServerInfo();
  absl::StatusOr<v1::GetLoadResponse> GetLoad();
  // FAILED_PRECONDITION when the server keeps its experts in no cache, UNIMPLEMENTED when it is too
  // old to tell.
  absl::StatusOr<v1::GetExpertCacheResponse> GetExpertCache(
      const v1::GetExpertCacheRequest& request);
  // What the server has recorded of its routing, as the bytes of a trace file.
  absl::StatusOr<std::string> DumpRoutingTrace();

  // Of a service that the server reports on; "" is the server as a whole.
  absl::StatusOr<ServingStatus> CheckHealth(const std::string& service);

  // Calls `on_status` with the status and with each change of it, until it returns an error, which
  // is returned, or the server ends the stream.
  absl::Status WatchHealth(const std::string& service,
                           absl::FunctionRef<absl::Status(ServingStatus)> on_status);

  // Waits until the server is there and its `service` is SERVING, for at most `timeout`. A server
  // that reports no health need only be there. CANCELLED, "interrupted", after `cancellation`.
  absl::Status WaitUntilServing(const std::string& service,
                                absl::Duration timeout,
                                Cancellation& cancellation);

 private:
  // Sets what every call has: its end, from now, and the token.
  void Prepare(grpc::ClientContext& context, absl::Duration deadline) const;
  template <typename Stub, typename Request, typename Response>
  absl::StatusOr<Response> Call(const char* method,
                                grpc::Status (Stub::*call)(grpc::ClientContext*,
                                                           const Request&,
                                                           Response*),
                                Stub& stub,
                                const Request& request);

  const ClientOptions options_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::InferenceService::Stub> inference_;
  const std::unique_ptr<v1::AdminService::Stub> admin_;
  const std::unique_ptr<grpc::health::v1::Health::Stub> health_;
};

}  // namespace pregate
