// pregate-bench: measures a model in this process, without a server.
#include <iostream>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "bench/corpus.h"
#include "bench/model_perplexity.h"
#include "bench/subcommands.h"
#include "core/base/status_macros.h"
#include "nlohmann/json.hpp"
#include "tools/cli.h"

namespace pregate {
namespace {

constexpr char kProgram[] = "pregate-bench";

struct CommandLine {
  EngineOptions engine;
  bool json = false;
  std::string text;
};

void AddPerplexity(CLI::App& app, CommandLine& line) {
  CLI::App* perplexity = app.add_subcommand("perplexity", "How well a model predicts a text");
  AddEngineFlags(*perplexity,
                 line.engine,
                 {"model",
                  "device",
                  "dtype",
                  "cpu-isa",
                  "threads",
                  "max-context",
                  "expert-codec",
                  "pack-folder"});
  AddFlags(*perplexity,
           {TextFlag("text",
                     "FILE",
                     "text, or zstd of it; a line of U+001E alone ends a document (required)",
                     line.text),
            SwitchFlag("json", "print one JSON object", line.json)});
  perplexity->get_option("--text")->required();
}

absl::Status RunPerplexity(const CommandLine& line, const Logger& logger) {
  PREGATE_ASSIGN_OR_RETURN(const std::string text, ReadText(line.text));
  PREGATE_ASSIGN_OR_RETURN(const ModelPerplexity result,
                           MeasureModelPerplexity(line.engine, text, logger));
  const Perplexity& figures = result.figures;
  if (line.json) {
    const nlohmann::ordered_json json = {{"model", result.model},
                                         {"codec", result.codec},
                                         {"dtype", result.dtype},
                                         {"context", result.context},
                                         {"stride", result.context / 2},
                                         {"tokens", figures.tokens},
                                         {"bytes", figures.bytes},
                                         {"nll_nats", figures.nll_nats},
                                         {"bits_per_byte", figures.bits_per_byte()},
                                         {"perplexity", figures.perplexity()}};
    std::cout << json.dump() << "\n";
    return absl::OkStatus();
  }
  std::cout << absl::StrFormat("%-16s %-9s %7s %7s %9s %10s %14s %11s\n",
                               "model",
                               "dtype",
                               "context",
                               "stride",
                               "tokens",
                               "bytes",
                               "bits per byte",
                               "perplexity")
            << absl::StrFormat("%-16s %-9s %7d %7d %9d %10d %14.4f %11.3f\n",
                               result.model,
                               result.dtype,
                               result.context,
                               result.context / 2,
                               figures.tokens,
                               figures.bytes,
                               figures.bits_per_byte(),
                               figures.perplexity());
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  CLI::App app("Measures a model in this process, without a server.", kProgram);
  app.require_subcommand(1);
  CommandLine line;
  AddPerplexity(app, line);
  const std::vector<Subcommand> subcommands = {AddBenchmark(app),
                                               AddCompare(app),
                                               AddSweep(app),
                                               AddReplay(app),
                                               AddLookup(app),
                                               AddLink(app)};
  if (const std::optional<int> code = ParseCommandLine(app, argc, argv)) return *code;
  const Logger logger(LogLevel::kWarning);
  absl::Status status;
  if (app.got_subcommand("perplexity")) status = RunPerplexity(line, logger);
  for (const Subcommand& subcommand : subcommands) {
    if (app.got_subcommand(subcommand.app)) status = subcommand.run(logger);
  }
  return status.ok() ? kExitOk : ReportFailure(kProgram, status);
}

}  // namespace
}  // namespace pregate

// NOLINTNEXTLINE(bugprone-exception-escape): nlohmann-json throws for wrong types, which are
// checked
int main(int argc, char** argv) { return pregate::Main(argc, argv); }
