// pregate-bench: measures a model in this process, without a server.
#include <algorithm>
#include <iostream>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "bench/corpus.h"
#include "bench/decode_benchmark.h"
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
  std::vector<uint32_t> batch_sizes = {1, 8};
  DecodeOptions decode;
};

Flag BatchSizesFlag(std::vector<uint32_t>& target) {
  return {.name = "batch-size",
          .value_name = "N,N",
          .help = "sequences side by side, one measurement each (default 1,8)",
          .set = [&target](absl::string_view text) -> absl::Status {
            std::vector<uint32_t> sizes;
            for (const absl::string_view piece : absl::StrSplit(text, ',')) {
              uint32_t size = 0;
              PREGATE_RETURN_IF_ERROR(CountFlag("", "", 1, 4096, size).set(piece));
              sizes.push_back(size);
            }
            target = sizes;
            return absl::OkStatus();
          }};
}

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

void AddBenchmark(CLI::App& app, CommandLine& line) {
  CLI::App* benchmark =
      app.add_subcommand("benchmark", "How fast a model decodes, beside its products' bound");
  AddEngineFlags(
      *benchmark,
      line.engine,
      {"model", "device", "dtype", "cpu-isa", "threads", "max-context", "kv-block-size"});
  DecodeOptions& decode = line.decode;
  AddFlags(
      *benchmark,
      {BatchSizesFlag(line.batch_sizes),
       CountFlag("input-len", "tokens of each prompt (default 32)", 1, 65536, decode.input_len),
       CountFlag("output-len", "tokens of each answer (default 64)", 2, 65536, decode.output_len),
       CountFlag("iterations", "turns that count (default 5)", 1, 10000, decode.iterations),
       CountFlag("warmup", "turns before them (default 1)", 0, 10000, decode.warmup),
       SwitchFlag("json", "print one JSON object", line.json)});
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

nlohmann::ordered_json ToJson(const Spread& spread) {
  return {{"median", spread.median}, {"min", spread.min}, {"max", spread.max}};
}

std::string RangeText(const Spread& spread, int decimals) {
  return absl::StrFormat(
      "%.*f (%.*f..%.*f)", decimals, spread.median, decimals, spread.min, decimals, spread.max);
}

absl::Status RunBenchmark(const CommandLine& line, const Logger& logger) {
  EngineOptions options = line.engine;
  const uint32_t most = *std::max_element(line.batch_sizes.begin(), line.batch_sizes.end());
  options.max_running = std::max(options.max_running, most);
  PREGATE_ASSIGN_OR_RETURN(const std::unique_ptr<DecodeBenchmark> benchmark,
                           DecodeBenchmark::Create(options, logger));
  const ModelDescription& model = benchmark->model();
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  if (!line.json) {
    std::cout << absl::StrFormat("%-16s %-9s %5s  %-18s %-26s %s\n",
                                 "model",
                                 "dtype",
                                 "batch",
                                 "ratio",
                                 "tokens/s",
                                 "bound, tokens/s");
  }
  for (const uint32_t batch_size : line.batch_sizes) {
    DecodeOptions decode = line.decode;
    decode.batch_size = batch_size;
    PREGATE_ASSIGN_OR_RETURN(const Comparison result, benchmark->Run(decode));
    rows.push_back({{"batch", batch_size},
                    {"ratio", ToJson(result.ratio)},
                    {"tokens_per_second", ToJson(result.measured)},
                    {"bound_tokens_per_second", ToJson(result.bound)}});
    if (line.json) continue;
    std::cout << absl::StrFormat("%-16s %-9s %5d  %-18s %-26s %s\n",
                                 model.name,
                                 model.dtype,
                                 batch_size,
                                 RangeText(result.ratio, 2),
                                 RangeText(result.measured, 0),
                                 RangeText(result.bound, 0))
              << std::flush;
  }
  if (line.json) {
    const nlohmann::ordered_json json = {{"model", model.name},
                                         {"dtype", model.dtype},
                                         {"input_len", line.decode.input_len},
                                         {"output_len", line.decode.output_len},
                                         {"iterations", line.decode.iterations},
                                         {"rows", rows}};
    std::cout << json.dump() << "\n";
  }
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  CLI::App app("Measures a model in this process, without a server.", kProgram);
  app.require_subcommand(1);
  CommandLine line;
  AddPerplexity(app, line);
  AddBenchmark(app, line);
  const std::vector<Subcommand> subcommands = {AddCompare(app), AddReplay(app)};
  if (const std::optional<int> code = ParseCommandLine(app, argc, argv)) return *code;
  const Logger logger(LogLevel::kWarning);
  absl::Status status;
  if (app.got_subcommand("perplexity")) status = RunPerplexity(line, logger);
  if (app.got_subcommand("benchmark")) status = RunBenchmark(line, logger);
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
