// What all calls of a server share.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "absl/status/statusor.h"
#include "core/base/check.h"
#include "core/base/log.h"
#include "core/base/thread.h"
#include "grpcpp/impl/codegen/proto_utils.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "server/authenticator.h"
#include "server/availability.h"
#include "server/permit.h"
#include "server/server_stats.h"
#include "server/status.h"

namespace pregate {

// Thread-safe; outlives the calls. Every call holds a permit and has at most one task in the pool,
// so the pool always has room.
struct ServerState {
  const Authenticator& authenticator;
  Availability& availability;
  ServerStats& stats;
  const Logger& logger;
  PermitPool& permits;
  ThreadPool& pool;
};

// RESOURCE_EXHAUSTED for a call that finds no permit.
absl::Status TooManyCalls(const PermitPool& permits);

// `message` out of a request's bytes. INVALID_ARGUMENT: they are not such a message, or a string in
// it is not UTF-8. CANCELLED: gRPC has no message to give, as the call ended before it came.
template <typename Message>
absl::Status ParseMessage(grpc::ByteBuffer bytes, Message& message) {
  if (!bytes.Valid()) {
    return absl::CancelledError("the call ended before its request had come");
  }
  if (grpc::SerializationTraits<Message>::Deserialize(&bytes, &message).ok())
    return absl::OkStatus();
  return WithReason(absl::InvalidArgumentError(
                        absl::StrCat("the request is not a valid ",
                                     Message::descriptor()->full_name(),
                                     ": undecodable bytes, or a string that is not UTF-8")),
                    "UNDECODABLE");
}

template <typename Message>
grpc::ByteBuffer SerializeMessage(const Message& message) {
  grpc::ByteBuffer bytes;
  bool own_buffer = false;
  const grpc::Status status =
      grpc::SerializationTraits<Message>::Serialize(message, &bytes, &own_buffer);
  PREGATE_CHECK(status.ok(), status.error_message());
  return bytes;
}

// What an admin changed or wanted to.
struct AdminAction {
  absl::string_view method;
  std::string request;  // its fields
  std::string client;   // as the authenticator calls it
  std::string peer;
};
// The log line that every one leaves behind, with what became of it.
void LogAdminAction(const Logger& logger, const AdminAction& action, const absl::Status& status);

// A unary call as gRPC hands it over.
struct UnaryCall {
  absl::string_view method;
  Access access;
  grpc::CallbackServerContext* context;
  const grpc::ByteBuffer* request;
  grpc::ByteBuffer* response;
};

// Answers a call, once it is admitted, by running `handle` on the pool; `client` is who calls.
template <typename Request, typename Response>
grpc::ServerUnaryReactor* RunUnary(
    const ServerState& state,
    const UnaryCall& call,
    std::function<absl::StatusOr<Response>(const Request& request, const std::string& client)>
        handle) {
  grpc::ServerUnaryReactor* const reactor = call.context->DefaultReactor();
  const auto finish = [&state, method = call.method, reactor](const absl::Status& status) {
    state.stats.OnHandled(method, status);
    reactor->Finish(ToGrpcStatus(status));
  };
  absl::StatusOr<std::string> client =
      state.authenticator.Admit(CredentialsOf(*call.context), call.access);
  if (!client.ok()) {
    finish(client.status());
    return reactor;
  }
  std::optional<Permit> permit = state.permits.TryAcquire();
  if (!permit.has_value()) {
    finish(TooManyCalls(state.permits));
    return reactor;
  }
  const auto held = std::make_shared<Permit>(
      *std::move(permit));  // std::function wants what it captures to be copyable
  const bool queued = state.pool.TryRun([held,
                                         finish,
                                         bytes = *call.request,
                                         response = call.response,
                                         client = *std::move(client),
                                         handle = std::move(handle)] {
    Request request;
    absl::Status status = ParseMessage(bytes, request);
    if (status.ok()) {
      const absl::StatusOr<Response> answer = handle(request, client);
      status = answer.status();
      if (answer.ok()) *response = SerializeMessage(*answer);
    }
    finish(status);
  });
  PREGATE_CHECK(queued, "the pool has no room for a call with a permit");
  return reactor;
}

}  // namespace pregate
