#include "server/inference_service.h"

#include "core/base/status_macros.h"
#include "server/convert.h"
#include "server/generate_reactor.h"

namespace pregate {

std::vector<std::string> InferenceService::MethodNames() {
  return {"Generate", "Complete", "Tokenize", "Detokenize", "ListModels", "GetModel"};
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* InferenceService::Generate(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request) {
  return new GenerateReactor(state_, *context, *request);  // deletes itself when it is done
}

grpc::ServerUnaryReactor* InferenceService::Complete(grpc::CallbackServerContext* context,
                                                     const grpc::ByteBuffer* request,
                                                     grpc::ByteBuffer* response) {
  return new CompleteReactor(
      state_, *context, *request, *response);  // deletes itself when it is done
}

grpc::ServerUnaryReactor* InferenceService::Tokenize(grpc::CallbackServerContext* context,
                                                     const grpc::ByteBuffer* request,
                                                     grpc::ByteBuffer* response) {
  return RunUnary<v1::TokenizeRequest, v1::TokenizeResponse>(
      state_,
      {"Tokenize", Access::kInference, context, request, response},
      [this](const v1::TokenizeRequest& wire,
             const std::string&) -> absl::StatusOr<v1::TokenizeResponse> {
        PREGATE_ASSIGN_OR_RETURN(const Engine* const engine, state_.availability.engine());
        PREGATE_RETURN_IF_ERROR(CheckModel(wire.model(), engine->model()));
        PREGATE_RETURN_IF_ERROR(CheckTextSize("text", wire.text(), engine->model()));
        const bool add_special_tokens = !wire.has_add_special_tokens() || wire.add_special_tokens();
        PREGATE_ASSIGN_OR_RETURN(const std::vector<uint32_t> token_ids,
                                 engine->tokenizer().Encode(wire.text(), add_special_tokens));
        v1::TokenizeResponse answer;
        answer.mutable_token_ids()->Add(token_ids.begin(), token_ids.end());
        return answer;
      });
}

grpc::ServerUnaryReactor* InferenceService::Detokenize(grpc::CallbackServerContext* context,
                                                       const grpc::ByteBuffer* request,
                                                       grpc::ByteBuffer* response) {
  return RunUnary<v1::DetokenizeRequest, v1::DetokenizeResponse>(
      state_,
      {"Detokenize", Access::kInference, context, request, response},
      [this](const v1::DetokenizeRequest& wire,
             const std::string&) -> absl::StatusOr<v1::DetokenizeResponse> {
        PREGATE_ASSIGN_OR_RETURN(const Engine* const engine, state_.availability.engine());
        PREGATE_RETURN_IF_ERROR(CheckModel(wire.model(), engine->model()));
        const absl::StatusOr<std::string> text =
            engine->tokenizer().Decode(wire.token_ids(), wire.skip_special_tokens());
        if (absl::IsInvalidArgument(text.status()))
          return InvalidFields({{"token_ids", std::string(text.status().message())}});
        PREGATE_RETURN_IF_ERROR(text.status());
        v1::DetokenizeResponse answer;
        answer.set_text(*text);
        return answer;
      });
}

grpc::ServerUnaryReactor* InferenceService::ListModels(grpc::CallbackServerContext* context,
                                                       const grpc::ByteBuffer* request,
                                                       grpc::ByteBuffer* response) {
  return RunUnary<v1::ListModelsRequest, v1::ListModelsResponse>(
      state_,
      {"ListModels", Access::kInference, context, request, response},
      [this](const v1::ListModelsRequest&,
             const std::string&) -> absl::StatusOr<v1::ListModelsResponse> {
        PREGATE_ASSIGN_OR_RETURN(const Engine* const engine, state_.availability.engine());
        v1::ListModelsResponse answer;
        *answer.add_models() = ConvertModel(*engine);
        return answer;
      });
}

grpc::ServerUnaryReactor* InferenceService::GetModel(grpc::CallbackServerContext* context,
                                                     const grpc::ByteBuffer* request,
                                                     grpc::ByteBuffer* response) {
  return RunUnary<v1::GetModelRequest, v1::Model>(
      state_,
      {"GetModel", Access::kInference, context, request, response},
      [this](const v1::GetModelRequest& wire, const std::string&) -> absl::StatusOr<v1::Model> {
        PREGATE_ASSIGN_OR_RETURN(const Engine* const engine, state_.availability.engine());
        PREGATE_RETURN_IF_ERROR(CheckModel(wire.model(), engine->model()));
        return ConvertModel(*engine);
      });
}

}  // namespace pregate
