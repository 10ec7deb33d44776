// pregated: serves one model until it is told to stop. Parses, composes, waits for signals;
// server/server.h has the rest.
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "core/base/log.h"
#include "core/base/status_macros.h"
#include "core/base/thread.h"
#include "core/pregate.h"
#include "google/protobuf/stubs/logging.h"
#include "server/config.h"
#include "server/profile_config.h"
#include "server/server.h"
#include "server/version.h"
#include "tools/cli.h"

namespace pregate {
namespace {

constexpr char kProgram[] = "pregated";

// SIGTERM and SIGINT, awaited by the main thread instead of handled. Made before any other thread,
// which inherits the mask.
class StopSignals {
 public:
  StopSignals() {
    sigemptyset(&set_);
    for (const int number : {SIGTERM, SIGINT, kWake}) sigaddset(&set_, number);
    pthread_sigmask(SIG_BLOCK, &set_, nullptr);
    signal(SIGPIPE, SIG_IGN);
  }

  // Waits for a stop signal, for Wake, or a second; true for a stop signal.
  bool Await() const {
    const timespec second{.tv_sec = 1, .tv_nsec = 0};
    const int number = sigtimedwait(&set_, nullptr, &second);
    return number == SIGTERM || number == SIGINT;
  }

  // Ends the main thread's Await; by any thread.
  static void Wake() { kill(getpid(), kWake); }

 private:
  static constexpr int kWake = SIGUSR1;
  sigset_t set_;
};

// Runs `work` on a thread of its own and waits for its end. Calls `on_stop` for each stop signal
// that comes meanwhile.
void RunWatched(const StopSignals& signals,
                const std::function<void()>& work,
                const std::function<void()>& on_stop) {
  std::atomic<bool> done = false;
  const Thread worker("worker", [&] {
    work();
    done = true;
    StopSignals::Wake();
  });
  while (!done) {
    if (signals.Await()) on_stop();
  }
}

absl::StatusOr<std::unique_ptr<Engine>> LoadEngine(const EngineOptions& options,
                                                   const StopSignals& signals,
                                                   const Logger& logger) {
  absl::StatusOr<std::unique_ptr<Engine>> engine = absl::UnknownError("not loaded");
  RunWatched(
      signals,
      [&] { engine = Engine::Create(options, logger); },
      [&] {
        logger.Info("stopped while loading");
        std::_Exit(kExitOk);  // nothing is served yet, so nothing is lost
      });
  return engine;
}

// Measures the device with the model of `options`, and prints what follows for the flags.
absl::Status Profile(const EngineOptions& options,
                     const Settings& given,
                     const StopSignals& signals,
                     const Logger& logger) {
  PREGATE_ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine,
                           LoadEngine(options, signals, logger));
  std::atomic<bool> is_stopped = false;
  std::optional<Progress> progress;
  uint32_t shown = 0;
  const auto on_step = [&](uint32_t done, uint32_t total) {
    if (!progress.has_value()) progress.emplace("measuring", total);
    progress->Advance(done - std::exchange(shown, done));
    return is_stopped ? absl::CancelledError("stopped while measuring") : absl::OkStatus();
  };
  absl::StatusOr<Engine::Profile> profile = absl::UnknownError("not measured");
  RunWatched(
      signals, [&] { profile = engine->ProfileDevice(on_step); }, [&] { is_stopped = true; });
  progress.reset();
  if (!profile.ok()) return profile.status();
  std::fputs(FormatProfileConfig(*profile, given).c_str(), stdout);
  return absl::OkStatus();
}

// Serves until a stop signal, then drains.
absl::Status Serve(const ServerOptions& options, const StopSignals& signals, const Logger& logger) {
  PREGATE_ASSIGN_OR_RETURN(const std::unique_ptr<Server> server, Server::Create(options, logger));
  PREGATE_ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine,
                           LoadEngine(options.engine, signals, logger));
  server->SetEngine(*engine);
  logger.Info("serving",
              {{"model", engine->model().name},
               {"family", engine->model().family},
               {"dtype", engine->model().dtype}});

  absl::Status health;
  while (health.ok() && !signals.Await()) {
    server->RefreshFiles();
    health = server->CheckHealth();
  }

  logger.Info("draining", {{"timeout_seconds", ToSeconds(options.drain_timeout)}});
  server->StartDraining();
  RunWatched(
      signals,
      [&] {
        engine->Shutdown(engine->clock().Now() + options.drain_timeout);
        server->Stop();
      },
      [&] {
        logger.Warning("second signal: stopped at once");
        std::_Exit(kExitFailure);
      });
  logger.Info("stopped");
  return health;
}

int Main(int argc, char** argv) {
  const StopSignals signals;
  // The library's own messages repeat what our statuses say; GRPC_VERBOSITY=debug brings them back.
  setenv("GRPC_VERBOSITY", "NONE", /*overwrite=*/0);
  google::protobuf::SetLogHandler(nullptr);

  ServerOptions options;
  std::string config_file;
  bool check_config = false;
  bool print_plan = false;
  bool profile = false;
  Settings given;
  const std::vector<Flag> flags = NoteSettings(ServerFlags(options), given);
  CLI::App app("Serves one Mixture-of-Experts model over gRPC.", kProgram);
  app.get_formatter()->column_width(37);  // most flags on one line, so that --help fits a screen
  app.add_option(
         "--config", config_file, "configuration in protobuf text format; flags override it")
      ->type_name("FILE");
  app.add_flag("--check-config", check_config, "check flags and configuration, then exit");
  app.add_flag("--print-plan", print_plan, "show what the memory is used for, then exit");
  app.add_flag("--profile", profile, "measure the device, print settings as a --config, then exit");
  AddFlags(app, flags);
  if (const std::optional<int> code = ParseCommandLine(app, argc, argv); code.has_value())
    return *code;
  if (!config_file.empty()) {
    if (const absl::Status status = ApplyConfigFile(config_file, flags); !status.ok())
      return ReportUsageError(kProgram, status);
    // Again, so that the command line's flags override the file's.
    if (const std::optional<int> code = ParseCommandLine(app, argc, argv); code.has_value())
      return *code;
  }
  absl::Status valid = ValidateOptions(options);
  if (valid.ok()) valid = Server::CheckFiles(options);
  if (!valid.ok()) return ReportUsageError(kProgram, valid);
  if (check_config) {
    std::puts("the configuration is valid");
    return kExitOk;
  }
  if (print_plan) {
    const absl::StatusOr<std::string> plan = Engine::DescribePlan(options.engine);
    if (!plan.ok()) return ReportFailure(kProgram, plan.status());
    std::fputs(plan->c_str(), stdout);
    return kExitOk;
  }
  const Logger logger(options.log_level, options.log_format);
  logger.Info("starting", {{"version", kVersion}, {"commit", kCommit}});
  const absl::Status status =
      profile ? Profile(options.engine, given, signals, logger) : Serve(options, signals, logger);
  return status.ok() ? kExitOk : ReportFailure(kProgram, status);
}

}  // namespace
}  // namespace pregate

int main(int argc, char** argv) { return pregate::Main(argc, argv); }
