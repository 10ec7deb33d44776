#include <iostream>
#include <memory>
#include <string>

#include "absl/strings/str_format.h"
#include "bench/corpus.h"
#include "bench/forced_routing.h"
#include "bench/offload_comparison.h"
#include "bench/offload_plots.h"
#include "bench/subcommands.h"
#include "core/base/bytes.h"
#include "core/base/status_macros.h"
#include "core/device/cpu_backend.h"
#include "nlohmann/json.hpp"
#include "tools/cli.h"

namespace pregate {
namespace {

struct CompareCommand {
  OffloadComparisonOptions options;
  std::string text_file;
  ForcedRoutingFlags routing;
  std::string plot;
  bool json = false;
};

// "1.5 GiB/s" or "1.5 GiB/s and 10.0 us a copy" of what --simulated-link takes.
std::string LinkText(const std::string& link) {
  const absl::StatusOr<SimulatedLink> parsed = ParseSimulatedLink(link);
  if (!parsed.ok()) return link;
  std::string text =
      absl::StrCat(FormatBytes(static_cast<uint64_t>(parsed->bytes_per_second)), "/s");
  if (parsed->latency_seconds > 0) {
    absl::StrAppendFormat(&text, " and %.1f us a copy", parsed->latency_seconds * 1e6);
  }
  return text;
}

void PrintTable(const OffloadComparison& comparison, const ForcedRouting& routing) {
  std::cout << CaptionOf(routing)
            << absl::StrFormat("model %s, codec %s", comparison.model, comparison.codec);
  if (!comparison.link.empty()) std::cout << ", link " << LinkText(comparison.link);
  if (comparison.record_seconds > 0) {
    std::cout << absl::StrFormat(
        "; a layer computes for %.2f ms and misses %.2f experts, a copy takes %.2f ms",
        comparison.layer_seconds * 1e3,
        comparison.layer_misses,
        comparison.record_seconds * 1e3);
  }
  const int name_width = routing.simulated.has_value() ? 38 : 16;
  std::cout << "\n"
            << absl::StrFormat("%-*s %6s %9s %17s %6s %6s %6s %9s %6s %9s %8s %8s\n",
                               name_width,
                               "speculation",
                               "slots",
                               "tokens/s",
                               "(range)",
                               "hit",
                               "late",
                               "miss",
                               "loaded",
                               "stall",
                               "useful",
                               "late",
                               "wasted");
  for (const OffloadRow& row : comparison.rows) {
    std::cout << absl::StrFormat(
        "%-*s %6d %9.1f %17s %6.3f %6.3f %6.3f %9s %5.1f%% %9s %8s %8s\n",
        name_width,
        NameOf(row, routing),
        row.num_slots,
        row.tokens_per_second.median,
        absl::StrFormat("(%.1f..%.1f)", row.tokens_per_second.min, row.tokens_per_second.max),
        row.experts.ShareOf(Lookup::kHit),
        row.experts.ShareOf(Lookup::kLateHit),
        row.experts.ShareOf(Lookup::kMiss),
        FormatBytes(row.experts.loaded_bytes),
        100 * row.stall_share(),
        FormatBytes(row.experts.hinted.useful),
        FormatBytes(row.experts.hinted.late),
        FormatBytes(row.experts.hinted.wasted));
  }
  std::cout << "= marks the controls. Every way gave the same logits, to the bit.\n";
}

void PrintJson(const OffloadComparison& comparison, const ForcedRouting& routing) {
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const OffloadRow& row : comparison.rows) {
    rows.push_back(
        {{"speculation", row.speculation},
         {"control",
          row.control.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(row.control)},
         {"residency", static_cast<double>(row.num_slots) / comparison.num_experts},
         {"batch", row.batch_size},
         {"runs", row.runs},
         {"tokens_per_second", ToJson(row.tokens_per_second)},
         {"hit_rate", row.experts.ShareOf(Lookup::kHit)},
         {"late_hit_rate", row.experts.ShareOf(Lookup::kLateHit)},
         {"miss_rate", row.experts.ShareOf(Lookup::kMiss)},
         {"loaded_bytes", row.experts.loaded_bytes},
         {"stall_share", row.stall_share()},
         {"prefetch_bytes",
          {{"useful", row.experts.hinted.useful},
           {"late", row.experts.hinted.late},
           {"wasted", row.experts.hinted.wasted},
           {"cancelled", row.experts.hinted.cancelled},
           {"pending", row.experts.hinted.pending}}}});
  }
  std::cout << nlohmann::ordered_json{{"model", comparison.model},
                                      {"commit", BuildCommit()},
                                      {"codec", comparison.codec},
                                      {"link", comparison.link},
                                      {"layer_seconds", comparison.layer_seconds},
                                      {"layer_misses", comparison.layer_misses},
                                      {"record_seconds", comparison.record_seconds},
                                      {"forced_routing", ToJson(routing)},
                                      {"rows", rows}}
                   .dump()
            << "\n";
}

absl::Status RunCompare(CompareCommand& command, const Logger& logger) {
  OffloadComparisonOptions& options = command.options;
  if (!command.text_file.empty()) {
    PREGATE_ASSIGN_OR_RETURN(options.work.text, ReadText(command.text_file));
  }
  PREGATE_ASSIGN_OR_RETURN(options.work.routing, ReadForcedRouting(command.routing));
  if (options.work.engine.experts.capacity.empty()) options.work.engine.experts.capacity = "25%";
  options.work.engine.max_running =
      std::max(options.work.engine.max_running, options.work.batch_size);
  Progress progress("comparing", MostTurns(options));
  PREGATE_ASSIGN_OR_RETURN(const OffloadComparison comparison,
                           CompareOffload(options, logger, [&] { progress.Advance(1); }));
  if (!command.plot.empty()) {
    PREGATE_RETURN_IF_ERROR(WriteComparisonPlots(command.plot, comparison, options.work.routing));
  }
  if (command.json) {
    PrintJson(comparison, options.work.routing);
  } else {
    PrintTable(comparison, options.work.routing);
  }
  return absl::OkStatus();
}

}  // namespace

Subcommand AddCompare(CLI::App& program) {
  const auto command = std::make_shared<CompareCommand>();
  OffloadComparisonOptions& options = command->options;
  CLI::App* const app =
      program.add_subcommand("compare", "Speculation modes side by side, with controls");
  AddEngineFlags(*app,
                 options.work.engine,
                 {"model",
                  "device",
                  "dtype",
                  "threads",
                  "expert-codec",
                  "expert-capacity",
                  "eviction",
                  "speculation-lookahead",
                  "speculation-aggressiveness",
                  "simulated-link",
                  "verify-slots",
                  "pack-folder"});
  AddFlags(
      *app,
      {SwitchFlag("balance-link",
                  "pace the link so that what a layer misses takes as long as it computes",
                  options.balance_link),
       TextFlag("text",
                "FILE",
                "what is read, or zstd of it (default: random tokens)",
                command->text_file),
       CountFlag(
           "batch-size", "sequences side by side (default 1)", 1, 4096, options.work.batch_size),
       CountFlag(
           "input-len", "tokens of each prompt (default 32)", 1, 65536, options.work.input_len),
       CountFlag(
           "output-len", "steps that are timed (default 64)", 1, 65536, options.work.output_len),
       CountFlag("iterations", "turns that count (default 5)", 1, 10000, options.iterations),
       CountFlag("warmup", "turns before them (default 1)", 0, 10000, options.warmup),
       TextFlag("plot", "DIR", "write pictures (SVG) into the folder", command->plot),
       SwitchFlag("json", "print one JSON object", command->json)});
  AddFlags(*app, FlagsOf(command->routing));
  return {.app = app,
          .run = [command](const Logger& logger) { return RunCompare(*command, logger); }};
}

}  // namespace pregate
