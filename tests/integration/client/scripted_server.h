// A gRPC server whose answers a test writes, one by one, while a program of ours is talking to it.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/base/mutex.h"
#include "grpcpp/server.h"
#include "pregate/v1/admin.grpc.pb.h"
#include "pregate/v1/inference.grpc.pb.h"

namespace pregate {

// A Generate that a program has called. Used by the test's thread, and by gRPC's.
class GenerateCall final : public grpc::ServerWriteReactor<v1::GenerateResponse> {
 public:
  GenerateCall(const grpc::CallbackServerContext& context, const v1::GenerateRequest& request);

  const v1::GenerateRequest& request() const { return request_; }
  bool has_deadline() const { return has_deadline_; }

  // Sends, and returns when it is sent; false when the client is gone.
  bool Send(const v1::GenerateResponse& event);
  void SendText(uint32_t token_id, const std::string& text);
  // Ends the call.
  void End(const grpc::Status& status = grpc::Status::OK);
  // Waits until the client cancels, then ends the call. False when it did not in half a minute.
  bool AwaitCancelled();

 private:
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

  const v1::GenerateRequest request_;
  const bool has_deadline_;
  v1::GenerateResponse event_;  // being written

  Mutex mutex_;
  CondVar changed_;
  std::optional<bool> written_ ABSL_GUARDED_BY(mutex_);
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  bool done_ ABSL_GUARDED_BY(mutex_) = false;
};

// Listens on a free port of 127.0.0.1. Health is SERVING until SetHealth.
class ScriptedServer final : private v1::InferenceService::CallbackService,
                             private v1::AdminService::CallbackService {
 public:
  ScriptedServer();
  // Ends what is not ended.
  ~ScriptedServer() override;

  const std::string& address() const { return address_; }
  void SetHealth(const std::string& service, bool serving);

  // The next call of Generate; nullptr when none comes in half a minute. Lives as long as this.
  GenerateCall* AwaitGenerate();

  // What the other methods answer: echoes, or this error.
  void SetError(const grpc::Status& error);
  // What GetExpertCache answers, and DumpRoutingTrace in pieces of three bytes. Without a cache
  // both answer FAILED_PRECONDITION.
  void SetExpertCache(const v1::GetExpertCacheResponse& cache, const std::string& trace);
  // The model that GetModel and ListModels tell of.
  v1::Model& model() { return model_; }

 private:
  using Context = grpc::CallbackServerContext;
  using Reactor = grpc::ServerUnaryReactor;

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(
      Context* context, const v1::GenerateRequest* request) override;
  Reactor* Tokenize(Context* context,
                    const v1::TokenizeRequest* request,
                    v1::TokenizeResponse* response) override;
  Reactor* Detokenize(Context* context,
                      const v1::DetokenizeRequest* request,
                      v1::DetokenizeResponse* response) override;
  Reactor* ListModels(Context* context,
                      const v1::ListModelsRequest* request,
                      v1::ListModelsResponse* response) override;
  Reactor* GetModel(Context* context,
                    const v1::GetModelRequest* request,
                    v1::Model* response) override;
  Reactor* GetServerInfo(Context* context,
                         const v1::GetServerInfoRequest* request,
                         v1::GetServerInfoResponse* response) override;
  Reactor* GetLoad(Context* context,
                   const v1::GetLoadRequest* request,
                   v1::GetLoadResponse* response) override;
  Reactor* GetExpertCache(Context* context,
                          const v1::GetExpertCacheRequest* request,
                          v1::GetExpertCacheResponse* response) override;
  grpc::ServerWriteReactor<v1::DumpRoutingTraceResponse>* DumpRoutingTrace(
      Context* context, const v1::DumpRoutingTraceRequest* request) override;
  Reactor* Finish(Context* context);

  std::string address_;
  v1::Model model_;
  Mutex mutex_;
  CondVar arrived_;
  grpc::Status error_ ABSL_GUARDED_BY(mutex_);
  std::optional<v1::GetExpertCacheResponse> expert_cache_ ABSL_GUARDED_BY(mutex_);
  std::string trace_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::unique_ptr<GenerateCall>> calls_ ABSL_GUARDED_BY(mutex_);
  size_t num_awaited_ ABSL_GUARDED_BY(mutex_) = 0;
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace pregate
