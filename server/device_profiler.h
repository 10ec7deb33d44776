// AdminService.ProfileDevice: a profile of the device beside whatever it serves.
#pragma once

#include <atomic>
#include <string>

#include "absl/status/statusor.h"
#include "core/base/thread.h"
#include "server/server_state.h"

namespace pregate {

// Thread-safe. Outlives its calls.
class DeviceProfiler {
 public:
  // `state` outlives this.
  explicit DeviceProfiler(const ServerState& state) : state_(state) {}

  // Answers a call of `client`: with its status unless that is OK, else with a profile, measured on
  // a thread of its own, for it takes seconds. A second call meanwhile is refused with
  // FAILED_PRECONDITION. One that is cancelled ends at the next step, as do all when the server
  // drains.
  grpc::ServerUnaryReactor* Answer(const absl::StatusOr<std::string>& client,
                                   grpc::CallbackServerContext* context,
                                   const grpc::ByteBuffer* request,
                                   grpc::ByteBuffer* response);

 private:
  class Call;

  const ServerState& state_;
  std::atomic<bool> is_busy_ = false;
  // Only who has set is_busy_ gives it a task, which clears it as the last: one at most runs or is
  // about to end, and one waits.
  ThreadPool thread_{"profile", 1, 1};
};

}  // namespace pregate
