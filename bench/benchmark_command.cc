#include <algorithm>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "bench/corpus.h"
#include "bench/decode_benchmark.h"
#include "bench/subcommands.h"
#include "core/base/bytes.h"
#include "core/base/status_macros.h"
#include "nlohmann/json.hpp"
#include "tools/cli.h"

namespace pregate {
namespace {

struct BenchmarkCommand {
  EngineOptions engine;
  DecodeOptions decode;
  ForcedRoutingFlags routing;
  std::vector<uint32_t> batch_sizes = {1, 8};
  std::string text_file;
  std::string record_routing;
  bool has_no_bound = false;
  bool is_detailed = false;
  bool json = false;
};

// What the whole run has in common.
struct Setting {
  ModelDescription model;
  ExpertOffload::State experts;
  ForcedRouting routing;
  uint32_t num_slots = 0;  // 0: experts are used where they lie

  std::string speculation() const {
    return routing.simulated.has_value() ? NameOf(*routing.simulated) : experts.speculation.mode;
  }
  double residency() const {
    return num_slots == 0 ? 1
                          : static_cast<double>(num_slots) / (model.num_layers * model.num_experts);
  }
};

struct Row {
  uint32_t batch_size = 0;
  DecodeFigures figures;
};

// Times of decode steps and what they went to.
struct StepTimes {
  double p50 = 0;
  double p90 = 0;
  double p99 = 0;
  double dense_share = 0;    // of all steps' time: routing, attention, norms, the head, sampling
  double waiting_share = 0;  // for experts
  double compute_share = 0;  // of experts
};

StepTimes TimesOf(const MeteredSteps& decode) {
  StepTimes times;
  if (decode.steps.empty()) return times;
  std::vector<double> seconds;
  double waiting = 0;
  double compute = 0;
  for (const MeteredStep& step : decode.steps) {
    seconds.push_back(step.seconds);
    waiting += step.stall_seconds;
    compute += step.compute_seconds;
  }
  std::sort(seconds.begin(), seconds.end());
  times.p50 = Percentile(seconds, 50);
  times.p90 = Percentile(seconds, 90);
  times.p99 = Percentile(seconds, 99);
  const double all = decode.seconds();
  times.waiting_share = waiting / all;
  times.compute_share = compute / all;
  times.dense_share = 1 - times.waiting_share - times.compute_share;
  return times;
}

void PrintSpeedHead(const ForcedRouting& routing) {
  std::cout << CaptionOf(routing)
            << absl::StrFormat("%-16s %-9s %5s  %-18s %-26s %-26s %s\n",
                               "model",
                               "dtype",
                               "batch",
                               "ratio",
                               "tokens/s",
                               "bound, tokens/s",
                               "prefill, tokens/s");
}

void PrintSpeed(const ModelDescription& model, const Row& row) {
  const DecodeFigures& figures = row.figures;
  const auto text = [](const std::optional<Spread>& spread, int decimals) {
    return spread.has_value() ? RangeText(*spread, decimals) : "-";
  };
  std::cout << absl::StrFormat("%-16s %-9s %5d  %-18s %-26s %-26s %s\n",
                               model.name,
                               model.dtype,
                               row.batch_size,
                               text(figures.ratio, 2),
                               RangeText(figures.tokens_per_second, 0),
                               text(figures.bound_tokens_per_second, 0),
                               RangeText(figures.prefill_tokens_per_second, 0))
            << std::flush;
}

void PrintExperts(const Setting& setting, const std::vector<Row>& rows) {
  const ExpertOffload::State& experts = setting.experts;
  std::cout << absl::StrFormat(
      "\nexperts: codec %s, %d slots (%.1f %% resident), %s, eviction %s, speculation %s\n",
      experts.codec,
      setting.num_slots,
      100 * setting.residency(),
      experts.memory_strategy,
      experts.eviction,
      setting.speculation());
  std::cout << absl::StrFormat("%5s  %-20s %-20s %-20s %-22s %-20s %s\n",
                               "batch",
                               "hit",
                               "late",
                               "miss",
                               "KB/token",
                               "link, GB/s",
                               "stall, %");
  for (const Row& row : rows) {
    const DecodeFigures& figures = row.figures;
    std::cout << absl::StrFormat("%5d  %-20s %-20s %-20s %-22s %-20s %s\n",
                                 row.batch_size,
                                 RangeText(figures.hit_rate, 3),
                                 RangeText(figures.late_hit_rate, 3),
                                 RangeText(figures.miss_rate, 3),
                                 RangeText(Scaled(figures.loaded_bytes_per_token, 1e-3), 1),
                                 RangeText(Scaled(figures.link_bytes_per_second, 1e-9), 3),
                                 RangeText(Scaled(figures.stall_share, 100), 1));
  }
}

void PrintDetails(const Row& row) {
  const MeteredSteps& decode = row.figures.steps.decode;
  const ExpertCounts& experts = decode.experts;
  const StepTimes times = TimesOf(decode);
  std::cout << absl::StrFormat(
      "\nbatch %d, %d decode steps: p50 %.3f ms, p90 %.3f ms, p99 %.3f ms\n"
      "of a step: routing and dense %.1f %%, waiting %.1f %%, computing experts %.1f %%\n"
      "predictions acted on: %d, recall %.3f, precision %.3f\n",
      row.batch_size,
      decode.steps.size(),
      times.p50 * 1e3,
      times.p90 * 1e3,
      times.p99 * 1e3,
      times.dense_share * 100,
      times.waiting_share * 100,
      times.compute_share * 100,
      experts.predicted,
      experts.recall(),
      experts.precision());
  std::cout << absl::StrFormat(
      "%5s %10s %10s %10s %10s\n", "layer", "look-ups", "hit", "late", "miss");
  for (size_t layer = 0; layer < experts.layer_lookups.size(); ++layer) {
    const auto& [hits, late, misses] = experts.layer_lookups[layer];
    std::cout << absl::StrFormat(
        "%5d %10d %10d %10d %10d\n", layer, hits + late + misses, hits, late, misses);
  }
}

nlohmann::ordered_json DetailsJson(const MeteredSteps& decode) {
  const ExpertCounts& experts = decode.experts;
  const StepTimes times = TimesOf(decode);
  nlohmann::ordered_json layers = nlohmann::ordered_json::array();
  for (size_t layer = 0; layer < experts.layer_lookups.size(); ++layer) {
    const auto& [hits, late, misses] = experts.layer_lookups[layer];
    layers.push_back({{"layer", layer}, {"hits", hits}, {"late_hits", late}, {"misses", misses}});
  }
  return {{"decode_steps", decode.steps.size()},
          {"step_seconds", {{"p50", times.p50}, {"p90", times.p90}, {"p99", times.p99}}},
          {"step_shares",
           {{"routing_and_dense", times.dense_share},
            {"waiting", times.waiting_share},
            {"expert_compute", times.compute_share}}},
          {"predictor",
           {{"predicted", experts.predicted},
            {"correct", experts.correct},
            {"recall", experts.recall()},
            {"precision", experts.precision()}}},
          {"layers", layers}};
}

nlohmann::ordered_json RowJson(const Row& row, bool is_detailed) {
  const auto optional = [](const std::optional<Spread>& spread) {
    return spread.has_value() ? ToJson(*spread) : nlohmann::ordered_json();
  };
  const DecodeFigures& figures = row.figures;
  const ExpertCounts& experts = figures.steps.decode.experts;
  nlohmann::ordered_json json = {
      {"batch", row.batch_size},
      {"ratio", optional(figures.ratio)},
      {"tokens_per_second", ToJson(figures.tokens_per_second)},
      {"bound_tokens_per_second", optional(figures.bound_tokens_per_second)},
      {"prefill_tokens_per_second", ToJson(figures.prefill_tokens_per_second)},
      {"lookups", experts.num_lookups()},
      {"hit_rate", ToJson(figures.hit_rate)},
      {"late_hit_rate", ToJson(figures.late_hit_rate)},
      {"miss_rate", ToJson(figures.miss_rate)},
      {"loaded_bytes", experts.loaded_bytes},
      {"loaded_bytes_per_token", ToJson(figures.loaded_bytes_per_token)},
      {"link_bytes_per_second", ToJson(figures.link_bytes_per_second)},
      {"stall_share", ToJson(figures.stall_share)}};
  if (is_detailed) json["details"] = DetailsJson(figures.steps.decode);
  return json;
}

void PrintJson(const BenchmarkCommand& command,
               const Setting& setting,
               const std::vector<Row>& rows) {
  nlohmann::ordered_json json = {{"model", setting.model.name},
                                 {"commit", BuildCommit()},
                                 {"dtype", setting.model.dtype},
                                 {"input_len", command.decode.input_len},
                                 {"output_len", command.decode.output_len},
                                 {"iterations", command.decode.iterations},
                                 {"codec", setting.experts.codec},
                                 {"memory_strategy", setting.experts.memory_strategy},
                                 {"slots", setting.num_slots},
                                 {"residency", setting.residency()},
                                 {"eviction", setting.experts.eviction},
                                 {"speculation", setting.speculation()},
                                 {"link", command.engine.experts.simulated_link},
                                 {"forced_routing", ToJson(setting.routing)},
                                 {"rows", nlohmann::ordered_json::array()}};
  for (const Row& row : rows) json["rows"].push_back(RowJson(row, command.is_detailed));
  std::cout << json.dump() << "\n";
}

// Adds the sequences of `more`, which is of the same model, under names of their own.
void Append(RoutingTrace more, uint32_t batch_size, RoutingTrace& trace) {
  for (RoutingTrace::Sequence& sequence : more.sequences) {
    sequence.id = absl::StrFormat("batch%d-%s", batch_size, sequence.id);
  }
  if (trace.sequences.empty()) {
    trace = std::move(more);
    return;
  }
  std::move(more.sequences.begin(), more.sequences.end(), std::back_inserter(trace.sequences));
}

absl::Status RunBenchmark(BenchmarkCommand& command, const Logger& logger) {
  DecodeOptions& decode = command.decode;
  decode.has_bound = !command.has_no_bound;
  if (!command.text_file.empty()) {
    PREGATE_ASSIGN_OR_RETURN(decode.text, ReadText(command.text_file));
  }
  const uint32_t most = *std::max_element(command.batch_sizes.begin(), command.batch_sizes.end());
  command.engine.max_running = std::max(command.engine.max_running, most);
  PREGATE_ASSIGN_OR_RETURN(const ForcedRouting routing, ReadForcedRouting(command.routing));
  PREGATE_ASSIGN_OR_RETURN(const std::unique_ptr<DecodeBenchmark> benchmark,
                           DecodeBenchmark::Create(command.engine, routing, logger));
  RoutingTrace recorded;
  std::vector<Row> rows;
  if (!command.json) PrintSpeedHead(routing);
  for (const uint32_t batch_size : command.batch_sizes) {
    decode.batch_size = batch_size;
    PREGATE_ASSIGN_OR_RETURN(DecodeFigures figures, benchmark->Run(decode));
    rows.push_back({.batch_size = batch_size, .figures = std::move(figures)});
    if (!command.json) PrintSpeed(benchmark->model(), rows.back());
    if (command.record_routing.empty()) continue;
    PREGATE_ASSIGN_OR_RETURN(RoutingTrace trace, benchmark->RecordRouting());
    Append(std::move(trace), batch_size, recorded);
  }
  if (!command.record_routing.empty()) {
    PREGATE_RETURN_IF_ERROR(WriteRoutingTrace(command.record_routing, recorded));
  }
  const Setting setting = {.model = benchmark->model(),
                           .experts = benchmark->experts(),
                           .routing = routing,
                           .num_slots = rows.back().figures.num_slots};
  if (command.json) {
    PrintJson(command, setting, rows);
    return absl::OkStatus();
  }
  if (setting.num_slots > 0) PrintExperts(setting, rows);
  if (!command.is_detailed) return absl::OkStatus();
  for (const Row& row : rows) PrintDetails(row);
  return absl::OkStatus();
}

}  // namespace

Subcommand AddBenchmark(CLI::App& program) {
  const auto command = std::make_shared<BenchmarkCommand>();
  DecodeOptions& decode = command->decode;
  CLI::App* const app = program.add_subcommand(
      "benchmark", "One configuration in depth: speed, its bound, and what its experts cost");
  AddEngineFlags(*app,
                 command->engine,
                 {"model",
                  "device",
                  "dtype",
                  "cpu-isa",
                  "threads",
                  "max-context",
                  "kv-block-size",
                  "expert-codec",
                  "expert-capacity",
                  "memory-strategy",
                  "eviction",
                  "speculation",
                  "speculation-lookahead",
                  "speculation-aggressiveness",
                  "speculation-confidence",
                  "simulated-link",
                  "verify-slots",
                  "pack-folder"});
  AddFlags(
      *app,
      {CountsFlag("batch-size",
                  "sequences side by side, one measurement each (default 1,8)",
                  1,
                  4096,
                  command->batch_sizes),
       TextFlag("text",
                "FILE",
                "what prompts are taken from, or zstd of it (default: random tokens)",
                command->text_file),
       CountFlag("input-len", "tokens of each prompt (default 32)", 1, 65536, decode.input_len),
       CountFlag("output-len", "tokens of each answer (default 64)", 2, 65536, decode.output_len),
       CountFlag("iterations", "turns that count (default 5)", 1, 10000, decode.iterations),
       CountFlag("warmup", "turns before them (default 1)", 0, 10000, decode.warmup),
       SwitchFlag("no-bound",
                  "leave the products' bound out, which takes memory for all experts",
                  command->has_no_bound)});
  AddFlags(*app, FlagsOf(command->routing));
  AddFlags(*app,
           {TextFlag("record-routing",
                     "FILE",
                     "write where the tokens of one turn went (docs/routing-trace.md)",
                     command->record_routing),
            SwitchFlag("collect-detailed-stats",
                       "look-ups by layer, recall, step times and what they went to",
                       command->is_detailed),
            SwitchFlag("json", "print one JSON object", command->json)});
  return {.app = app,
          .run = [command](const Logger& logger) { return RunBenchmark(*command, logger); }};
}

}  // namespace pregate
