// pregate.v1.InferenceService over an engine. A thin adapter: checks and conversions are in
// convert, streaming in generation_call.
#pragma once

#include <string>
#include <vector>

#include "pregate/v1/inference.grpc.pb.h"
#include "server/server_state.h"

namespace pregate {

// Takes raw bytes, because gRPC's own parsing would answer UNIMPLEMENTED without a text to what it
// cannot decode.
using RawInferenceService = v1::InferenceService::WithRawCallbackMethod_Generate<
    v1::InferenceService::WithRawCallbackMethod_Complete<
        v1::InferenceService::WithRawCallbackMethod_Tokenize<
            v1::InferenceService::WithRawCallbackMethod_Detokenize<
                v1::InferenceService::WithRawCallbackMethod_ListModels<
                    v1::InferenceService::WithRawCallbackMethod_GetModel<
                        v1::InferenceService::Service>>>>>>;

class InferenceService final : public RawInferenceService {
 public:
  // `state` outlives the service.
  explicit InferenceService(const ServerState& state) : state_(state) {}

  static std::vector<std::string> MethodNames();

  grpc::ServerWriteReactor<grpc::ByteBuffer>* Generate(grpc::CallbackServerContext* context,
                                                       const grpc::ByteBuffer* request) override;
  grpc::ServerUnaryReactor* Complete(grpc::CallbackServerContext* context,
                                     const grpc::ByteBuffer* request,
                                     grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context,
                                     const grpc::ByteBuffer* request,
                                     grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* context,
                                       const grpc::ByteBuffer* request,
                                       grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* context,
                                       const grpc::ByteBuffer* request,
                                       grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* GetModel(grpc::CallbackServerContext* context,
                                     const grpc::ByteBuffer* request,
                                     grpc::ByteBuffer* response) override;

 private:
  const ServerState& state_;
};

}  // namespace pregate
