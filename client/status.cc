// pregate models, health and stats.
#include <cstdio>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "client/command.h"
#include "client/output.h"
#include "client/server_state.h"
#include "core/base/status_macros.h"
#include "tools/cli.h"

namespace pregate {
namespace {

using grpc::health::v1::HealthCheckResponse;

absl::Status ShowModels(const CommonOptions& options) {
  Client client(options.client);
  Cancellation cancellation;
  PREGATE_RETURN_IF_ERROR(WaitIfAsked(client, options, cancellation));
  PREGATE_ASSIGN_OR_RETURN(const v1::ListModelsResponse response, client.ListModels());
  if (!options.json) return Output(stdout).Write(FormatModels(response));
  std::string lines;
  for (const v1::Model& model : response.models()) absl::StrAppend(&lines, ToJson(model), "\n");
  return Output(stdout).Write(lines);
}

absl::Status ShowStats(const CommonOptions& options) {
  Client client(options.client);
  Cancellation cancellation;
  PREGATE_RETURN_IF_ERROR(WaitIfAsked(client, options, cancellation));
  PREGATE_ASSIGN_OR_RETURN(const v1::GetServerInfoResponse info, client.GetServerInfo());
  PREGATE_ASSIGN_OR_RETURN(const v1::GetLoadResponse load, client.GetLoad());
  return Output(stdout).Write(
      options.json
          ? absl::StrCat("{\"server_info\":", ToJson(info), ",\"load\":", ToJson(load), "}\n")
          : FormatStats(info, load));
}

struct Health {
  std::string service;
  bool watch = false;
};

absl::Status ShowServingStatus(Client::ServingStatus status, bool json) {
  HealthCheckResponse response;
  response.set_status(status);
  return Output(stdout).Write(absl::StrCat(
      json ? ToJson(response) : HealthCheckResponse::ServingStatus_Name(status), "\n"));
}

// The last status that was seen and shown.
absl::StatusOr<Client::ServingStatus> ShowHealth(const CommonOptions& options,
                                                 const Health& health) {
  Client client(options.client);
  Cancellation cancellation;
  PREGATE_RETURN_IF_ERROR(WaitIfAsked(client, options, cancellation, health.service));
  if (!health.watch) {
    PREGATE_ASSIGN_OR_RETURN(const Client::ServingStatus status,
                             client.CheckHealth(health.service));
    PREGATE_RETURN_IF_ERROR(ShowServingStatus(status, options.json));
    return status;
  }
  Client::ServingStatus last = HealthCheckResponse::UNKNOWN;
  PREGATE_RETURN_IF_ERROR(
      client.WatchHealth(health.service, [&last, &options](Client::ServingStatus status) {
        last = status;
        return ShowServingStatus(status, options.json);
      }));
  return last;
}

int RunHealth(const CommonOptions& options, const Health& health) {
  const absl::StatusOr<Client::ServingStatus> status = ShowHealth(options, health);
  if (!status.ok()) return Fail(status.status());
  return *status == HealthCheckResponse::SERVING ? kExitOk : kExitFailure;
}

int ExitCode(const absl::Status& status) { return status.ok() ? kExitOk : Fail(status); }

}  // namespace

Command AddModels(CLI::App& program, const CommonOptions& options) {
  return {.app = program.add_subcommand("models", "list what is served"),
          .run = [&options] { return ExitCode(ShowModels(options)); }};
}

Command AddStats(CLI::App& program, const CommonOptions& options) {
  return {.app = program.add_subcommand("stats", "show the server and its load"),
          .run = [&options] { return ExitCode(ShowStats(options)); }};
}

Command AddHealth(CLI::App& program, const CommonOptions& options) {
  const auto health = std::make_shared<Health>();
  CLI::App* const app =
      program.add_subcommand("health", "print the health; exits 1 unless SERVING");
  AddFlags(*app,
           {TextFlag("service",
                     "NAME",
                     "liveness, readiness or a gRPC service (default: the whole server)",
                     health->service),
            SwitchFlag("watch", "print each change until interrupted", health->watch)});
  return {.app = app, .run = [&options, health] { return RunHealth(options, *health); }};
}

}  // namespace pregate
