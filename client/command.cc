#include "client/command.h"

#include "tools/cli.h"

namespace pregate {

absl::Status WaitIfAsked(Client& client,
                         const CommonOptions& options,
                         Cancellation& cancellation,
                         const std::string& service) {
  if (!options.wait.has_value()) return absl::OkStatus();
  return client.WaitUntilServing(service, *options.wait, cancellation);
}

int Fail(const absl::Status& status) { return ReportFailure("pregate", status); }

int FailUsage(const absl::Status& status) { return ReportUsageError("pregate", status); }

}  // namespace pregate
