#include "server/server_state.h"

#include <chrono>

namespace pregate {

absl::Status TooManyCalls(const PermitPool& permits) {
  return WithRetryDelay(
      WithReason(absl::ResourceExhaustedError(
                     absl::StrCat("too many calls at once: the limit is ", permits.capacity())),
                 "QUEUE_FULL"),
      std::chrono::seconds(1));
}

void LogAdminAction(const Logger& logger, const AdminAction& action, const absl::Status& status) {
  logger.Info("admin",
              {{"method", action.method},
               {"request", action.request},
               {"client", action.client},
               {"peer", action.peer},
               {"code", absl::StatusCodeToString(status.code())}});
}

}  // namespace pregate
