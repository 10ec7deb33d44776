// pregate models, health, stats and trace.
#include <cerrno>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/command.h"
#include "client/output.h"
#include "client/server_state.h"
#include "core/base/bytes.h"
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

// Empty when the server has none to tell of.
absl::StatusOr<std::optional<v1::GetExpertCacheResponse>> ReadExpertCache(Client& client,
                                                                          bool include_layers) {
  v1::GetExpertCacheRequest request;
  request.set_include_layers(include_layers);
  absl::StatusOr<v1::GetExpertCacheResponse> cache = client.GetExpertCache(request);
  if (cache.ok()) return std::optional(*std::move(cache));
  if (absl::IsFailedPrecondition(cache.status()) || absl::IsUnimplemented(cache.status()) ||
      absl::IsUnavailable(cache.status())) {
    return std::optional<v1::GetExpertCacheResponse>();
  }
  return cache.status();
}

absl::Status ShowStats(const CommonOptions& options, bool include_layers) {
  Client client(options.client);
  Cancellation cancellation;
  PREGATE_RETURN_IF_ERROR(WaitIfAsked(client, options, cancellation));
  PREGATE_ASSIGN_OR_RETURN(const v1::GetServerInfoResponse info, client.GetServerInfo());
  PREGATE_ASSIGN_OR_RETURN(const v1::GetLoadResponse load, client.GetLoad());
  PREGATE_ASSIGN_OR_RETURN(const std::optional<v1::GetExpertCacheResponse> cache,
                           ReadExpertCache(client, include_layers));
  if (!options.json) {
    return Output(stdout).Write(
        absl::StrCat(FormatStats(info, load), cache.has_value() ? FormatExpertCache(*cache) : ""));
  }
  return Output(stdout).Write(
      absl::StrCat("{\"server_info\":",
                   ToJson(info),
                   ",\"load\":",
                   ToJson(load),
                   cache.has_value() ? absl::StrCat(",\"expert_cache\":", ToJson(*cache)) : "",
                   "}\n"));
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

absl::Status FetchTrace(const CommonOptions& options, const std::string& path) {
  Client client(options.client);
  Cancellation cancellation;
  PREGATE_RETURN_IF_ERROR(WaitIfAsked(client, options, cancellation));
  PREGATE_ASSIGN_OR_RETURN(const std::string trace, client.DumpRoutingTrace());
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "wb"),
                                                             std::fclose);
  if (file == nullptr) return absl::ErrnoToStatus(errno, absl::StrCat("cannot write ", path));
  PREGATE_RETURN_IF_ERROR(Output(file.get()).Write(trace));
  if (options.json) {
    return Output(stdout).Write(absl::StrCat("{\"bytes\":", trace.size(), "}\n"));
  }
  return Output(stdout).Write(absl::StrCat(FormatBytes(trace.size()), " in ", path, "\n"));
}

int ExitCode(const absl::Status& status) { return status.ok() ? kExitOk : Fail(status); }

}  // namespace

Command AddModels(CLI::App& program, const CommonOptions& options) {
  return {.app = program.add_subcommand("models", "list what is served"),
          .run = [&options] { return ExitCode(ShowModels(options)); }};
}

Command AddStats(CLI::App& program, const CommonOptions& options) {
  const auto include_layers = std::make_shared<bool>(false);
  CLI::App* const app =
      program.add_subcommand("stats", "show the server, its load and its expert cache");
  AddFlags(*app, {SwitchFlag("layers", "show the look-ups of each layer", *include_layers)});
  return {.app = app, .run = [&options, include_layers] {
            return ExitCode(ShowStats(options, *include_layers));
          }};
}

Command AddTrace(CLI::App& program, const CommonOptions& options) {
  const auto path = std::make_shared<std::string>();
  CLI::App* const app =
      program.add_subcommand("trace", "fetch which experts the server chose lately");
  app->add_option("OUT", *path, "file to write (docs/routing-trace.md)")->required();
  return {.app = app, .run = [&options, path] { return ExitCode(FetchTrace(options, *path)); }};
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
