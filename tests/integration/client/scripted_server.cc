#include "tests/integration/client/scripted_server.h"

#include "absl/strings/str_cat.h"
#include "core/base/check.h"
#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/server_builder.h"

namespace pregate {
namespace {

// Only a bound for what hangs: a test that passes never waits so long.
std::chrono::steady_clock::time_point Patience() {
  return std::chrono::steady_clock::now() + std::chrono::seconds(30);
}

const grpc::Status kNoCache(grpc::StatusCode::FAILED_PRECONDITION, "there is no expert cache");

// Sends `trace` in small pieces and ends with `status`.
class TraceCall final : public grpc::ServerWriteReactor<v1::DumpRoutingTraceResponse> {
 public:
  TraceCall(std::string trace, grpc::Status status)
      : trace_(std::move(trace)), status_(std::move(status)) {
    SendNext();
  }

 private:
  void SendNext() {
    if (sent_ >= trace_.size()) return Finish(status_);
    piece_.set_data(trace_.substr(sent_, 3));
    sent_ += 3;
    StartWrite(&piece_);
  }
  void OnWriteDone(bool ok) override { ok ? SendNext() : Finish(grpc::Status::CANCELLED); }
  void OnDone() override { delete this; }

  const std::string trace_;
  const grpc::Status status_;
  size_t sent_ = 0;
  v1::DumpRoutingTraceResponse piece_;
};

}  // namespace

GenerateCall::GenerateCall(const grpc::CallbackServerContext& context,
                           const v1::GenerateRequest& request)
    : request_(request),
      has_deadline_(context.deadline() != std::chrono::system_clock::time_point::max()) {}

bool GenerateCall::Send(const v1::GenerateResponse& event) {
  {
    MutexLock lock(mutex_);
    written_.reset();
  }
  event_ = event;
  StartWrite(&event_);
  MutexLock lock(mutex_);
  while (!written_.has_value()) changed_.Wait(mutex_);
  return *written_;
}

void GenerateCall::SendText(uint32_t token_id, const std::string& text) {
  v1::GenerateResponse event;
  event.mutable_delta()->add_token_ids(token_id);
  event.mutable_delta()->set_text(text);
  Send(event);
}

void GenerateCall::End(const grpc::Status& status) {
  {
    MutexLock lock(mutex_);
    if (ended_) return;
    ended_ = true;
  }
  Finish(status);
  MutexLock lock(mutex_);
  while (!done_) changed_.Wait(mutex_);
}

bool GenerateCall::AwaitCancelled() {
  bool cancelled = false;
  {
    const auto patience = Patience();
    MutexLock lock(mutex_);
    while (!cancelled_ && std::chrono::steady_clock::now() < patience) {
      changed_.WaitUntil(mutex_, patience);
    }
    cancelled = cancelled_;
  }
  End(grpc::Status::CANCELLED);
  return cancelled;
}

void GenerateCall::OnWriteDone(bool ok) {
  MutexLock lock(mutex_);
  written_ = ok;
  changed_.NotifyAll();
}

void GenerateCall::OnCancel() {
  MutexLock lock(mutex_);
  cancelled_ = true;
  changed_.NotifyAll();
}

void GenerateCall::OnDone() {
  MutexLock lock(mutex_);
  done_ = true;
  changed_.NotifyAll();
}

ScriptedServer::ScriptedServer() {
  model_.set_name("scripted");
  model_.set_has_chat_template(true);
  grpc::EnableDefaultHealthCheckService(true);
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(static_cast<v1::InferenceService::CallbackService*>(this));
  builder.RegisterService(static_cast<v1::AdminService::CallbackService*>(this));
  server_ = builder.BuildAndStart();
  PREGATE_CHECK(server_ != nullptr);
  address_ = absl::StrCat("127.0.0.1:", port);
}

ScriptedServer::~ScriptedServer() {
  std::vector<GenerateCall*> calls;
  {
    MutexLock lock(mutex_);
    closing_ = true;
    for (const auto& call : calls_) calls.push_back(call.get());
  }
  for (GenerateCall* call : calls) call->End(grpc::Status::CANCELLED);
  server_->Shutdown();
}

void ScriptedServer::SetHealth(const std::string& service, bool serving) {
  server_->GetHealthCheckService()->SetServingStatus(service, serving);
}

GenerateCall* ScriptedServer::AwaitGenerate() {
  const auto patience = Patience();
  MutexLock lock(mutex_);
  while (calls_.size() == num_awaited_) {
    if (std::chrono::steady_clock::now() >= patience) return nullptr;
    arrived_.WaitUntil(mutex_, patience);
  }
  return calls_[num_awaited_++].get();
}

void ScriptedServer::SetError(const grpc::Status& error) {
  MutexLock lock(mutex_);
  error_ = error;
}

void ScriptedServer::SetExpertCache(const v1::GetExpertCacheResponse& cache,
                                    const std::string& trace) {
  MutexLock lock(mutex_);
  expert_cache_ = cache;
  trace_ = trace;
}

grpc::ServerWriteReactor<v1::GenerateResponse>* ScriptedServer::Generate(
    Context* context, const v1::GenerateRequest* request) {
  MutexLock lock(mutex_);
  calls_.push_back(std::make_unique<GenerateCall>(*context, *request));
  if (closing_) calls_.back()->Finish(grpc::Status::CANCELLED);
  arrived_.NotifyAll();
  return calls_.back().get();
}

// The ids of "abc" are 97 98 99.
ScriptedServer::Reactor* ScriptedServer::Tokenize(Context* context,
                                                  const v1::TokenizeRequest* request,
                                                  v1::TokenizeResponse* response) {
  if (!request->has_add_special_tokens() || request->add_special_tokens()) {
    response->add_token_ids(1);
  }
  for (const unsigned char c : request->text()) response->add_token_ids(c);
  return Finish(context);
}

ScriptedServer::Reactor* ScriptedServer::Detokenize(Context* context,
                                                    const v1::DetokenizeRequest* request,
                                                    v1::DetokenizeResponse* response) {
  for (const uint32_t id : request->token_ids()) {
    if (id == 1 && request->skip_special_tokens()) continue;
    response->mutable_text()->push_back(id == 1 ? '^' : static_cast<char>(id));
  }
  return Finish(context);
}

ScriptedServer::Reactor* ScriptedServer::ListModels(Context* context,
                                                    const v1::ListModelsRequest*,
                                                    v1::ListModelsResponse* response) {
  *response->add_models() = model_;
  return Finish(context);
}

ScriptedServer::Reactor* ScriptedServer::GetModel(Context* context,
                                                  const v1::GetModelRequest*,
                                                  v1::Model* response) {
  *response = model_;
  return Finish(context);
}

ScriptedServer::Reactor* ScriptedServer::GetServerInfo(Context* context,
                                                       const v1::GetServerInfoRequest*,
                                                       v1::GetServerInfoResponse* response) {
  response->set_version("1.2.3");
  response->set_model(model_.name());
  response->set_uptime_seconds(61.5);
  response->set_device("cpu");
  response->set_dtype("float32");
  return Finish(context);
}

ScriptedServer::Reactor* ScriptedServer::GetLoad(Context* context,
                                                 const v1::GetLoadRequest*,
                                                 v1::GetLoadResponse* response) {
  response->set_requests_running(3);
  response->set_max_running(64);
  return Finish(context);
}

// Layers are told of when they are asked for.
ScriptedServer::Reactor* ScriptedServer::GetExpertCache(Context* context,
                                                        const v1::GetExpertCacheRequest* request,
                                                        v1::GetExpertCacheResponse* response) {
  Reactor* const reactor = context->DefaultReactor();
  MutexLock lock(mutex_);
  if (expert_cache_.has_value()) *response = *expert_cache_;
  if (!request->include_layers()) response->clear_layers();
  reactor->Finish(expert_cache_.has_value() ? grpc::Status::OK : kNoCache);
  return reactor;
}

grpc::ServerWriteReactor<v1::DumpRoutingTraceResponse>* ScriptedServer::DumpRoutingTrace(
    Context*, const v1::DumpRoutingTraceRequest*) {
  MutexLock lock(mutex_);
  return new TraceCall(trace_, expert_cache_.has_value() ? error_ : kNoCache);  // deletes itself
}

ScriptedServer::Reactor* ScriptedServer::Finish(Context* context) {
  Reactor* const reactor = context->DefaultReactor();
  MutexLock lock(mutex_);
  reactor->Finish(error_);
  return reactor;
}

}  // namespace pregate
