// grpc-overhead: what a token costs on its way through gRPC. CPU time of a server process per token
// that InferenceService.Generate streams to clients in another process, beside that of the same
// engine read in-process, in turns. The model is a pause: no time of its own is in the figures.
#include <fcntl.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "bench/decode_rate.h"
#include "bench/spread.h"
#include "core/base/check.h"
#include "core/base/status_macros.h"
#include "core/pregate.h"
#include "grpcpp/create_channel.h"
#include "nlohmann/json.hpp"
#include "pregate/v1/inference.grpc.pb.h"
#include "server/server.h"
#include "tools/cli.h"

extern char** environ;

namespace pregate {
namespace {

constexpr char kProgram[] = "grpc-overhead";
constexpr char kClient[] = "client";  // the subcommand that the program runs itself with
constexpr char kText[] =
    "The quick brown fox jumps over the lazy dog while the server counts its microseconds. ";

struct CommandLine {
  std::string tokenizer = "models/switch-mini";
  uint32_t streams = 8;
  uint32_t output_len = 256;
  uint32_t step_microseconds = 1000;
  uint32_t iterations = 5;
  uint32_t warmup = 1;
  bool json = false;
  uint32_t port = 0;  // the client's
};

// Answers every sequence with the tokens of a text, over and over, a step at a time.
class PausingRunner final : public ModelRunner {
 public:
  PausingRunner(std::vector<uint32_t> text, Duration step, uint32_t vocab_size, uint32_t streams)
      : text_(std::move(text)),
        step_(step),
        limits_({.vocab_size = vocab_size,
                 .max_context = 4096,
                 .kv_block_size = 16,
                 .num_kv_blocks = 4096 / 16 * streams}) {}

  const Limits& limits() const override { return limits_; }

  absl::StatusOr<StepResult> Run(const StepPlan& plan) override {
    std::this_thread::sleep_for(step_);
    StepResult result;
    for (const SequenceStep& step : plan.sequences) {
      SequenceResult& sequence = result.sequences.emplace_back();
      if (step.sampling == nullptr) continue;
      const size_t position = step.first_position + step.token_ids.size();
      sequence.token = GeneratedToken{.token_id = text_[position % text_.size()], .logprob = {}};
    }
    return result;
  }

  void VisitStats(StatsVisitor&) const override {}

 private:
  const std::vector<uint32_t> text_;
  const Duration step_;
  const Limits limits_;
};

absl::StatusOr<std::unique_ptr<Engine>> MakeEngine(const CommandLine& line, const Logger& logger) {
  PREGATE_ASSIGN_OR_RETURN(std::unique_ptr<Tokenizer> tokenizer, Tokenizer::Load(line.tokenizer));
  PREGATE_ASSIGN_OR_RETURN(std::vector<uint32_t> text, tokenizer->Encode(kText, false));
  ModelDescription model;
  model.name = kProgram;
  model.vocab_size = static_cast<uint32_t>(tokenizer->vocab_size());
  auto runner = std::make_unique<PausingRunner>(std::move(text),
                                                std::chrono::microseconds(line.step_microseconds),
                                                model.vocab_size,
                                                line.streams);
  model.max_context = runner->limits().max_context;
  EngineOptions options;
  options.max_running = line.streams;
  return Engine::Assemble({.model = std::move(model),
                           .tokenizer = std::move(tokenizer),
                           .chat_template = nullptr,
                           .runner = std::move(runner),
                           .clock = std::make_unique<RealClock>()},
                          options,
                          logger);
}

// CPU time that this process has used, in microseconds.
double UsedMicroseconds() {
  rusage usage;
  PREGATE_CHECK(getrusage(RUSAGE_SELF, &usage) == 0);
  const auto micros = [](const timeval& time) {
    return 1e6 * static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec);
  };
  return micros(usage.ru_utime) + micros(usage.ru_stime);
}

// Streams one answer. The messages that carried its tokens; 0 when it does not come whole.
uint32_t ReadAnswer(v1::InferenceService::Stub& stub, uint32_t output_len) {
  v1::GenerateRequest request;
  request.mutable_token_ids()->add_ids(1);
  request.mutable_sampling()->set_temperature(0);
  request.mutable_stopping()->set_max_tokens(output_len);
  request.mutable_stopping()->set_ignore_eos(true);
  grpc::ClientContext context;
  const auto reader = stub.Generate(&context, request);
  v1::GenerateResponse response;
  uint32_t num_tokens = 0;
  uint32_t num_messages = 0;
  while (reader->Read(&response)) {
    if (!response.has_delta()) continue;
    num_tokens += static_cast<uint32_t>(response.delta().token_ids_size());
    ++num_messages;
  }
  const grpc::Status status = reader->Finish();
  if (!status.ok()) std::cerr << absl::StrCat(status.error_message(), "\n");
  return status.ok() && num_tokens == output_len ? num_messages : 0;
}

// The other process: reads all streams, a thread each, and prints the number of messages.
int RunClient(const CommandLine& line) {
  const auto channel = grpc::CreateChannel(absl::StrCat("127.0.0.1:", line.port),
                                           grpc::InsecureChannelCredentials());
  const auto stub = v1::InferenceService::NewStub(channel);
  std::vector<uint32_t> num_messages(line.streams);
  std::vector<std::thread> threads;
  threads.reserve(line.streams);
  for (uint32_t& count : num_messages) {
    threads.emplace_back([&] { count = ReadAnswer(*stub, line.output_len); });
  }
  for (std::thread& thread : threads) thread.join();
  uint64_t sum = 0;
  for (const uint32_t count : num_messages) {
    if (count == 0) return kExitFailure;
    sum += count;
  }
  std::cout << sum << "\n";
  return kExitOk;
}

// All that can be read from `descriptor`.
std::string ReadToEnd(int descriptor) {
  std::string text;
  char buffer[256];
  ssize_t count = 0;
  while ((count = read(descriptor, buffer, sizeof(buffer))) > 0) {
    text.append(buffer, static_cast<size_t>(count));
  }
  return text;
}

// Runs the client to its end. The number of messages that it got.
absl::StatusOr<uint64_t> SpawnClient(const CommandLine& line, uint16_t port) {
  std::vector<std::string> arguments = {kProgram,
                                        kClient,
                                        absl::StrCat("--port=", port),
                                        absl::StrCat("--streams=", line.streams),
                                        absl::StrCat("--output-len=", line.output_len)};
  std::vector<char*> argv;
  argv.reserve(arguments.size() + 1);
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);

  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return absl::ErrnoToStatus(errno, "cannot make a pipe");
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  pid_t pid = -1;
  const int error = posix_spawn(&pid, "/proc/self/exe", &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  const std::string printed = ReadToEnd(ends[0]);
  close(ends[0]);
  if (error != 0) return absl::ErrnoToStatus(error, "cannot run the client");

  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  uint64_t num_messages = 0;
  if (!WIFEXITED(status) || WEXITSTATUS(status) != kExitOk ||
      !absl::SimpleAtoi(printed, &num_messages)) {
    return absl::InternalError("the client did not get its answers");
  }
  return num_messages;
}

struct Overhead {
  Spread through_grpc;  // CPU microseconds of this process per token
  Spread in_process;
  Spread difference;
  Spread tokens_per_message;
};

absl::StatusOr<Overhead> Measure(const CommandLine& line, const Logger& logger) {
  PREGATE_ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine, MakeEngine(line, logger));
  ServerOptions options;
  options.listen = "127.0.0.1:0";
  options.http_listen = "127.0.0.1:0";
  options.engine.max_running = line.streams;
  PREGATE_ASSIGN_OR_RETURN(const std::unique_ptr<Server> server, Server::Create(options, logger));
  server->SetEngine(*engine);

  const double num_tokens = static_cast<double>(line.streams) * line.output_len;
  const std::vector<std::vector<uint32_t>> prompts(line.streams, {1});
  std::vector<double> through_grpc;
  std::vector<double> in_process;
  std::vector<double> difference;
  std::vector<double> tokens_per_message;
  for (uint32_t i = 0; i < line.warmup + line.iterations; ++i) {
    const double start = UsedMicroseconds();
    PREGATE_ASSIGN_OR_RETURN(const uint64_t num_messages, SpawnClient(line, server->grpc_port()));
    const double middle = UsedMicroseconds();
    PREGATE_RETURN_IF_ERROR(MeasureDecodeRate(*engine, prompts, line.output_len).status());
    const double end = UsedMicroseconds();
    if (i < line.warmup) continue;
    through_grpc.push_back((middle - start) / num_tokens);
    in_process.push_back((end - middle) / num_tokens);
    difference.push_back(through_grpc.back() - in_process.back());
    tokens_per_message.push_back(num_tokens / static_cast<double>(num_messages));
  }
  engine->Shutdown(TimePoint::max());
  server->Stop();
  return Overhead{.through_grpc = SpreadOf(through_grpc),
                  .in_process = SpreadOf(in_process),
                  .difference = SpreadOf(difference),
                  .tokens_per_message = SpreadOf(tokens_per_message)};
}

void Print(const CommandLine& line, const Overhead& overhead) {
  const std::pair<const char*, const Spread*> rows[] = {{"through_grpc", &overhead.through_grpc},
                                                        {"in_process", &overhead.in_process},
                                                        {"difference", &overhead.difference}};
  if (line.json) {
    nlohmann::ordered_json json = {{"streams", line.streams}, {"output_len", line.output_len}};
    for (const auto& [name, spread] : rows) {
      json[absl::StrCat(name, "_microseconds")] = {
          {"median", spread->median}, {"min", spread->min}, {"max", spread->max}};
    }
    json["tokens_per_message"] = overhead.tokens_per_message.median;
    std::cout << json.dump() << "\n";
    return;
  }
  std::cout << absl::StrFormat("CPU per token, %d streams of %d tokens, %.2f tokens a message\n",
                               line.streams,
                               line.output_len,
                               overhead.tokens_per_message.median);
  for (const auto& [name, spread] : rows) {
    std::cout << absl::StrFormat(
        "%-16s %6.1f us (%.1f..%.1f)\n", name, spread->median, spread->min, spread->max);
  }
}

int Main(int argc, char** argv) {
  CLI::App app("Measures the CPU time of the server per token that it streams through gRPC.",
               kProgram);
  CommandLine line;
  const auto sizes = [&line] {
    return std::vector<Flag>{
        CountFlag("streams", "requests side by side (default 8)", 1, 1024, line.streams),
        CountFlag("output-len", "tokens of each answer (default 256)", 2, 4000, line.output_len)};
  };
  AddFlags(app, sizes());
  AddFlags(app,
           {TextFlag("tokenizer",
                     "DIR",
                     "folder with a tokenizer.json (default models/switch-mini)",
                     line.tokenizer),
            CountFlag("step-microseconds",
                      "pause of each step (default 1000)",
                      0,
                      1'000'000,
                      line.step_microseconds),
            CountFlag("iterations", "turns that count (default 5)", 1, 10000, line.iterations),
            CountFlag("warmup", "turns before them (default 1)", 0, 10000, line.warmup),
            SwitchFlag("json", "print one JSON object", line.json)});
  CLI::App* client = app.add_subcommand(kClient, "")->group("");  // not in --help
  AddFlags(*client, sizes());
  AddFlags(*client, {CountFlag("port", "", 1, 65535, line.port)});
  if (const std::optional<int> code = ParseCommandLine(app, argc, argv)) return *code;
  if (app.got_subcommand(client)) return RunClient(line);

  const Logger logger(LogLevel::kWarning);
  const absl::StatusOr<Overhead> overhead = Measure(line, logger);
  if (!overhead.ok()) return ReportFailure(kProgram, overhead.status());
  Print(line, *overhead);
  return kExitOk;
}

}  // namespace
}  // namespace pregate

// NOLINTNEXTLINE(bugprone-exception-escape): nlohmann-json throws for wrong types, which are
// checked
int main(int argc, char** argv) { return pregate::Main(argc, argv); }
