// What Generate and Complete have in common: from the request's bytes to an answer that grows.
#pragma once

#include <functional>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "core/base/mutex.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/byte_buffer.h"
#include "server/answer.h"
#include "server/server_state.h"
#include "server/strand.h"

namespace pregate {

// Lives in a gRPC reactor. The reactor calls Begin when it is constructed, Cancel and Retire from
// OnCancel and OnDone, Poke when a write is done; `advance` runs on the pool, one at a time, and
// there alone are Pull, answer and End called.
class GenerationCall {
 public:
  // `method` and `context` outlive the call.
  GenerationCall(const ServerState& state,
                 absl::string_view method,
                 grpc::CallbackServerContext& context,
                 const grpc::ByteBuffer& bytes,
                 std::function<void()> advance);

  // Not OK: the client is not admitted or there are too many calls, and this one has to be finished
  // with End of that.
  absl::Status Begin();
  void Poke() { strand_.Poke(); }
  void Cancel();
  void Retire(std::function<void()> destroy) { strand_.Retire(std::move(destroy)); }

  // The first time submits the request, later takes in what has arrived. Not OK: the request was
  // refused, there is no answer.
  absl::Status Pull();
  Answer& answer() { return *answer_; }

  // Counts and logs the call; no advance is caused by the engine after it. What the reactor has to
  // finish with.
  grpc::Status End(absl::Status status);

 private:
  absl::Status Submit();

  const ServerState& state_;
  const absl::string_view method_;
  grpc::CallbackServerContext& context_;
  grpc::ByteBuffer bytes_;
  std::optional<Permit> permit_;
  std::string client_;
  std::string request_id_;
  std::optional<Answer> answer_;

  Mutex mutex_;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  ResponseStream* stream_ ABSL_GUARDED_BY(mutex_) = nullptr;  // answer_'s, for Cancel

  Strand strand_;
};

}  // namespace pregate
