#include "tests/support/test_server.h"

#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "core/base/check.h"
#include "grpc/grpc.h"
#include "grpcpp/completion_queue.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/generic/generic_stub.h"
#include "httplib.h"

namespace pregate {
namespace {

// gRPC shuts down with its last user, and may then wait ten seconds for a poller of its own. So it
// is kept for as long as the process lives, instead of shut down between two tests.
void KeepGrpc() {
  static const bool kept = [] {
    grpc_init();
    return true;
  }();
  static_cast<void>(kept);
}

std::unique_ptr<Server> MakeServer(const EngineOptions& engine,
                                   ServerOptions options,
                                   const Logger& logger) {
  KeepGrpc();
  options.engine = engine;
  options.engine.served_model_name = "fake";
  options.listen = "127.0.0.1:0";
  options.http_listen = "127.0.0.1:0";
  absl::StatusOr<std::unique_ptr<Server>> server = Server::Create(options, logger);
  PREGATE_CHECK(server.ok(), server.status().message());
  return *std::move(server);
}

// Whatever proxy the machine has.
std::shared_ptr<grpc::Channel> Connect(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

}  // namespace

void RecordedLog::Add(const std::string& line) {
  MutexLock lock(mutex_);
  absl::StrAppend(&lines_, line, "\n");
  changed_.NotifyAll();
}

void RecordedLog::Await(const std::string& text) {
  MutexLock lock(mutex_);
  while (!absl::StrContains(lines_, text)) changed_.Wait(mutex_);
}

std::string RecordedLog::all() const {
  MutexLock lock(mutex_);
  return lines_;
}

TestServer::TestServer(const FakeEngineOptions& options, Start start, const ServerOptions& server)
    : logger_(
          LogLevel::kDebug, LogFormat::kText, [this](const std::string& line) { log_.Add(line); }),
      fake_(options, logger_),
      server_(MakeServer(options.engine, server, logger_)),
      channel_(Connect(address())),
      inference_(v1::InferenceService::NewStub(channel_)),
      admin_(v1::AdminService::NewStub(channel_)),
      health_(grpc::health::v1::Health::NewStub(channel_)) {
  if (start == Start::kReady) SetEngine();
}

TestServer::~TestServer() {
  server_->StartDraining();
  engine().Shutdown(engine().clock().Now());
  server_->Stop();
}

std::string TestServer::address() const { return absl::StrCat("127.0.0.1:", server_->grpc_port()); }

grpc::health::v1::HealthCheckResponse::ServingStatus TestServer::CheckHealth(
    const std::string& service) {
  using grpc::health::v1::HealthCheckResponse;
  grpc::ClientContext context;
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(service);
  HealthCheckResponse response;
  const grpc::Status status = health_->Check(&context, request, &response);
  if (status.error_code() == grpc::StatusCode::NOT_FOUND)
    return HealthCheckResponse::SERVICE_UNKNOWN;
  return status.ok() ? response.status() : HealthCheckResponse::UNKNOWN;
}

TestServer::HttpAnswer TestServer::Get(const std::string& path) const {
  httplib::Client client("127.0.0.1", server_->http_port());
  const httplib::Result result = client.Get(path.c_str());
  if (!result) return {};
  return {result->status, result->get_header_value("Content-Type"), result->body};
}

double TestServer::Metric(const std::string& series) const {
  const std::string body = Get("/metrics").body;
  for (absl::string_view line : absl::StrSplit(body, '\n')) {
    const std::string plain = absl::StrReplaceAll(
        line, {{"{model=\"fake\"}", ""}, {"{model=\"fake\",", "{"}, {",model=\"fake\"", ""}});
    absl::string_view rest = plain;
    double value = 0;
    if (absl::ConsumePrefix(&rest, series + " ") && absl::SimpleAtod(rest, &value)) return value;
  }
  return -1;
}

void TestServer::AwaitLoad(uint32_t running, uint32_t waiting) {
  Engine::Load load = engine().load();
  while (load.running != running || load.waiting != waiting) {
    std::this_thread::yield();
    load = engine().load();
  }
}

v1::GenerateRequest Ask(const std::string& prompt, uint32_t max_tokens) {
  v1::GenerateRequest request;
  request.set_prompt(prompt);
  request.mutable_sampling()->set_temperature(0);
  request.mutable_stopping()->set_max_tokens(max_tokens);
  return request;
}

StreamingCall::StreamingCall(v1::InferenceService::Stub& stub, const v1::GenerateRequest& request)
    : reader_(stub.Generate(&context_, request)) {}

bool StreamingCall::Read() {
  v1::GenerateResponse event;
  if (!reader_->Read(&event)) return false;
  streamed_.events.push_back(event);
  if (event.has_delta()) {
    streamed_.choice.mutable_token_ids()->MergeFrom(event.delta().token_ids());
    streamed_.choice.mutable_text()->append(event.delta().text());
    streamed_.choice.mutable_logprobs()->MergeFrom(event.delta().logprobs());
  }
  if (event.has_finished()) *streamed_.choice.mutable_finished() = event.finished();
  if (event.has_summary()) streamed_.summary = event.summary();
  return true;
}

const Streamed& StreamingCall::ReadTokens(int count) {
  while (streamed_.choice.token_ids_size() < count && Read()) {
  }
  return streamed_;
}

const Streamed& StreamingCall::ReadAll() {
  while (Read()) {
  }
  streamed_.status = reader_->Finish();
  return streamed_;
}

Streamed Generate(TestServer& server, const v1::GenerateRequest& request) {
  StreamingCall call(server.inference(), request);
  return call.ReadAll();
}

std::pair<grpc::Status, std::string> CallRaw(TestServer& server,
                                             const std::string& method,
                                             const std::string& bytes) {
  grpc::TemplatedGenericStub<grpc::ByteBuffer, grpc::ByteBuffer> stub(server.channel());
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  const grpc::Slice slice(bytes);
  const grpc::ByteBuffer request(&slice, 1);
  const auto reader = stub.PrepareUnaryCall(&context, method, request, &queue);
  grpc::ByteBuffer response;
  grpc::Status status;
  reader->StartCall();
  reader->Finish(&response, &status, nullptr);
  void* tag = nullptr;
  bool ok = false;
  PREGATE_CHECK(queue.Next(&tag, &ok));
  std::string answer;
  std::vector<grpc::Slice> slices;
  if (status.ok() && response.Dump(&slices).ok()) {
    for (const grpc::Slice& part : slices)
      answer.append(reinterpret_cast<const char*>(part.begin()), part.size());
  }
  return {status, answer};
}

Details DetailsOf(const grpc::Status& status) {
  Details details;
  google::rpc::Status wire;
  if (!wire.ParseFromString(status.error_details())) return details;
  for (const google::protobuf::Any& any : wire.details()) {
    google::rpc::ErrorInfo info;
    google::rpc::BadRequest bad_request;
    if (any.UnpackTo(&info)) {
      details.reason = info.reason();
      details.domain = info.domain();
    } else if (any.UnpackTo(&bad_request)) {
      for (const auto& violation : bad_request.field_violations())
        details.fields.push_back(violation.field());
    } else if (any.Is<google::rpc::RetryInfo>()) {
      details.has_retry = true;
    }
  }
  return details;
}

}  // namespace pregate
