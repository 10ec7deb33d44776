#include "client/client.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <cstdint>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "client/failure.h"
#include "core/base/status_macros.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/support/channel_arguments.h"

namespace pregate {
namespace {

using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

constexpr absl::Duration kDefaultCallDeadline = absl::Seconds(30);

std::shared_ptr<grpc::ChannelCredentials> MakeCredentials(const std::optional<ClientTls>& tls) {
  if (!tls.has_value()) return grpc::InsecureChannelCredentials();
  grpc::SslCredentialsOptions options;
  options.pem_root_certs = tls->authorities;
  options.pem_private_key = tls->key;
  options.pem_cert_chain = tls->certificate;
  return grpc::SslCredentials(options);
}

std::shared_ptr<grpc::Channel> Connect(const ClientOptions& options) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);  // what we asked for is ours to hold
  // A server that is starting is looked for every second, not every two minutes.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  if (IsLoopbackServer(options.server)) arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return grpc::CreateCustomChannel(options.server, MakeCredentials(options.tls), arguments);
}

}  // namespace

absl::Status CheckServerAddress(absl::string_view server) {
  const size_t colon = server.rfind(':');
  uint32_t port = 0;
  bool valid = colon != absl::string_view::npos && colon > 0 &&
               absl::SimpleAtoi(server.substr(colon + 1), &port) && port > 0 && port < 65536;
  if (valid) {
    const absl::string_view host = server.substr(0, colon);
    const bool in_brackets = host.front() == '[' && host.back() == ']';
    valid = in_brackets || !absl::StrContains(host, ':');
  }
  if (valid) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("\"", server, "\" is not HOST:PORT, such as 127.0.0.1:50051 or [::1]:50051"));
}

bool IsLoopbackServer(absl::string_view server) {
  const absl::string_view host = server.substr(0, server.rfind(':'));
  in_addr v4{};
  if (inet_pton(AF_INET, std::string(host).c_str(), &v4) == 1) return ntohl(v4.s_addr) >> 24 == 127;
  return host == "localhost" || host == "[::1]";
}

bool Cancellation::Cancel() {
  MutexLock lock(mutex_);
  cancelled_ = true;
  if (context_ == nullptr) return false;
  context_->TryCancel();
  return true;
}

void Cancellation::Reset() {
  MutexLock lock(mutex_);
  cancelled_ = false;
}

bool Cancellation::cancelled() {
  MutexLock lock(mutex_);
  return cancelled_;
}

void Cancellation::Attach(grpc::ClientContext* context) {
  MutexLock lock(mutex_);
  context_ = context;
  if (cancelled_ && context_ != nullptr) context_->TryCancel();
}

Client::Client(const ClientOptions& options)
    : options_(options),
      channel_(Connect(options)),
      inference_(v1::InferenceService::NewStub(channel_)),
      admin_(v1::AdminService::NewStub(channel_)),
      health_(grpc::health::v1::Health::NewStub(channel_)) {}

void Client::Prepare(grpc::ClientContext& context, absl::Duration deadline) const {
  if (deadline != absl::InfiniteDuration())
    context.set_deadline(absl::ToChronoTime(absl::Now() + deadline));
  if (!options_.token.empty())
    context.AddMetadata("authorization", absl::StrCat("Bearer ", options_.token));
}

template <typename Stub, typename Request, typename Response>
absl::StatusOr<Response> Client::Call(const char* method,
                                      grpc::Status (Stub::*call)(grpc::ClientContext*,
                                                                 const Request&,
                                                                 Response*),
                                      Stub& stub,
                                      const Request& request) {
  const absl::Duration deadline = options_.deadline.value_or(kDefaultCallDeadline);
  grpc::ClientContext context;
  Prepare(context, deadline);
  Response response;
  const grpc::Status status = (stub.*call)(&context, request, &response);
  if (!status.ok()) return DescribeFailure(status, {options_.server, method, deadline});
  return response;
}

absl::Status Client::Generate(
    const v1::GenerateRequest& request,
    Cancellation& cancellation,
    absl::FunctionRef<absl::Status(const v1::GenerateResponse&)> on_event) {
  const absl::Duration deadline = options_.deadline.value_or(absl::InfiniteDuration());
  grpc::ClientContext context;
  Prepare(context, deadline);
  cancellation.Attach(&context);
  const auto reader = inference_->Generate(&context, request);
  absl::Status shown;
  for (v1::GenerateResponse event; shown.ok() && reader->Read(&event);) shown = on_event(event);
  if (!shown.ok()) context.TryCancel();
  const grpc::Status status = reader->Finish();
  cancellation.Attach(nullptr);
  if (!shown.ok() || status.ok()) return shown;
  if (cancellation.cancelled()) return absl::CancelledError("interrupted");
  return DescribeFailure(status, {options_.server, "Generate", deadline});
}

absl::StatusOr<v1::TokenizeResponse> Client::Tokenize(const v1::TokenizeRequest& request) {
  return Call("Tokenize", &v1::InferenceService::Stub::Tokenize, *inference_, request);
}

absl::StatusOr<v1::DetokenizeResponse> Client::Detokenize(const v1::DetokenizeRequest& request) {
  return Call("Detokenize", &v1::InferenceService::Stub::Detokenize, *inference_, request);
}

absl::StatusOr<v1::ListModelsResponse> Client::ListModels() {
  return Call(
      "ListModels", &v1::InferenceService::Stub::ListModels, *inference_, v1::ListModelsRequest());
}

absl::StatusOr<v1::Model> Client::GetModel(const std::string& name) {
  v1::GetModelRequest request;
  request.set_model(name);
  return Call("GetModel", &v1::InferenceService::Stub::GetModel, *inference_, request);
}

absl::StatusOr<v1::GetServerInfoResponse> Client::GetServerInfo() {
  return Call(
      "GetServerInfo", &v1::AdminService::Stub::GetServerInfo, *admin_, v1::GetServerInfoRequest());
}

absl::StatusOr<v1::GetLoadResponse> Client::GetLoad() {
  return Call("GetLoad", &v1::AdminService::Stub::GetLoad, *admin_, v1::GetLoadRequest());
}

absl::StatusOr<v1::GetExpertCacheResponse> Client::GetExpertCache(
    const v1::GetExpertCacheRequest& request) {
  return Call("GetExpertCache", &v1::AdminService::Stub::GetExpertCache, *admin_, request);
}

absl::StatusOr<std::string> Client::DumpRoutingTrace() {
  const absl::Duration deadline = options_.deadline.value_or(absl::InfiniteDuration());
  grpc::ClientContext context;
  Prepare(context, deadline);
  const auto reader = admin_->DumpRoutingTrace(&context, v1::DumpRoutingTraceRequest());
  std::string trace;
  for (v1::DumpRoutingTraceResponse piece; reader->Read(&piece);) trace += piece.data();
  const grpc::Status status = reader->Finish();
  if (status.ok()) return trace;
  return DescribeFailure(status, {options_.server, "DumpRoutingTrace", deadline});
}

absl::StatusOr<Client::ServingStatus> Client::CheckHealth(const std::string& service) {
  HealthCheckRequest request;
  request.set_service(service);
  PREGATE_ASSIGN_OR_RETURN(
      const HealthCheckResponse response,
      Call("Health.Check", &grpc::health::v1::Health::Stub::Check, *health_, request));
  return response.status();
}

absl::Status Client::WatchHealth(const std::string& service,
                                 absl::FunctionRef<absl::Status(ServingStatus)> on_status) {
  const absl::Duration deadline = options_.deadline.value_or(absl::InfiniteDuration());
  grpc::ClientContext context;
  Prepare(context, deadline);
  HealthCheckRequest request;
  request.set_service(service);
  const auto reader = health_->Watch(&context, request);
  absl::Status shown;
  HealthCheckResponse response;
  while (shown.ok() && reader->Read(&response)) shown = on_status(response.status());
  if (!shown.ok()) context.TryCancel();
  const grpc::Status status = reader->Finish();
  if (!shown.ok() || status.ok()) return shown;
  return DescribeFailure(status, {options_.server, "Health.Watch", deadline});
}

absl::Status Client::WaitUntilServing(const std::string& service,
                                      absl::Duration timeout,
                                      Cancellation& cancellation) {
  const absl::Time end = absl::Now() + timeout;
  HealthCheckRequest request;
  request.set_service(service);
  std::string last_seen = "nothing answers there";
  for (;;) {
    grpc::ClientContext context;
    context.set_wait_for_ready(true);
    Prepare(context, end - absl::Now());
    cancellation.Attach(&context);
    const auto reader = health_->Watch(&context, request);
    HealthCheckResponse response;
    bool is_serving = false;
    while (!is_serving && reader->Read(&response)) {
      is_serving = response.status() == HealthCheckResponse::SERVING;
      last_seen =
          absl::StrCat("it is ", HealthCheckResponse::ServingStatus_Name(response.status()));
    }
    if (is_serving) context.TryCancel();
    const grpc::Status status = reader->Finish();
    cancellation.Attach(nullptr);
    if (is_serving) return absl::OkStatus();
    if (cancellation.cancelled()) return absl::CancelledError("interrupted");
    switch (status.error_code()) {
      case grpc::StatusCode::UNIMPLEMENTED:
        return absl::OkStatus();
      case grpc::StatusCode::OK:
      case grpc::StatusCode::CANCELLED:
      case grpc::StatusCode::UNAVAILABLE:
        last_seen = "it went away";  // and may come back
        continue;
      case grpc::StatusCode::DEADLINE_EXCEEDED:
        return absl::DeadlineExceededError(absl::StrCat(options_.server,
                                                        " was not ready within ",
                                                        absl::FormatDuration(timeout),
                                                        ": ",
                                                        last_seen,
                                                        " (DEADLINE_EXCEEDED)"));
      default:
        return DescribeFailure(status, {options_.server, "Health.Watch", timeout});
    }
  }
}

}  // namespace pregate
