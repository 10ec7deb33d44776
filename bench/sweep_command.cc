#include <algorithm>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "bench/corpus.h"
#include "bench/forced_routing.h"
#include "bench/offload_sweep.h"
#include "bench/plot.h"
#include "bench/subcommands.h"
#include "core/base/bytes.h"
#include "core/base/status_macros.h"
#include "nlohmann/json.hpp"
#include "tools/cli.h"

namespace pregate {
namespace {

struct SweepCommand {
  SweepOptions options;
  ForcedRoutingFlags routing;
  std::string text_file;
  std::string plot_folder;  // "" = no pictures
  bool json = false;
};

double BytesPerToken(const OffloadRow& row) {
  return static_cast<double>(row.experts.loaded_bytes) / static_cast<double>(row.num_tokens);
}

void PrintTable(const SweepCommand& command, const Sweep& sweep) {
  const ForcedRouting& routing = command.options.work.routing;
  std::cout << CaptionOf(routing) << "model " << sweep.model;
  if (routing.simulated.has_value()) {
    std::cout << ", speculation " << NameOf(*routing.simulated);
  }
  std::cout << "\n"
            << absl::StrFormat("%-8s %5s %9s %6s %9s %19s %6s %13s %6s %6s %6s %10s %6s  %s\n",
                               "codec",
                               "batch",
                               "resident",
                               "slots",
                               "tokens/s",
                               "(range)",
                               "ratio",
                               "(range)",
                               "hit",
                               "late",
                               "miss",
                               "KB/token",
                               "stall",
                               "speculation");
  for (const SweepRow& row : sweep.rows) {
    const OffloadRow& figures = row.row;
    const Spread& rate = figures.tokens_per_second;
    std::cout << absl::StrFormat(
        "%-8s %5d %8d%% %6d %9.1f %19s %6.2f %13s %6.3f %6.3f %6.3f %10.1f %5.1f%%  %s\n",
        row.codec,
        figures.batch_size,
        row.residency,
        figures.num_slots,
        rate.median,
        absl::StrFormat("(%.1f..%.1f)", rate.min, rate.max),
        row.ratio.median,
        absl::StrFormat("(%.2f..%.2f)", row.ratio.min, row.ratio.max),
        figures.experts.ShareOf(Lookup::kHit),
        figures.experts.ShareOf(Lookup::kLateHit),
        figures.experts.ShareOf(Lookup::kMiss),
        BytesPerToken(figures) / 1e3,
        100 * figures.stall_share(),
        figures.control.empty() ? figures.speculation : "= " + figures.control);
  }
  std::cout << "= marks the controls. Ratio: to the all-resident control of the same codec and "
               "batch, turn by turn.\n";
}

void PrintJson(const SweepCommand& command, const Sweep& sweep) {
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const SweepRow& row : sweep.rows) {
    const OffloadRow& figures = row.row;
    rows.push_back({{"codec", row.codec},
                    {"batch", figures.batch_size},
                    {"residency", static_cast<double>(figures.num_slots) / sweep.num_experts},
                    {"slots", figures.num_slots},
                    {"speculation", figures.speculation},
                    {"control",
                     figures.control.empty() ? nlohmann::ordered_json()
                                             : nlohmann::ordered_json(figures.control)},
                    {"runs", figures.runs},
                    {"tokens_per_second", ToJson(figures.tokens_per_second)},
                    {"ratio_to_resident", ToJson(row.ratio)},
                    {"lookups", figures.experts.num_lookups()},
                    {"hit_rate", figures.experts.ShareOf(Lookup::kHit)},
                    {"late_hit_rate", figures.experts.ShareOf(Lookup::kLateHit)},
                    {"miss_rate", figures.experts.ShareOf(Lookup::kMiss)},
                    {"loaded_bytes", figures.experts.loaded_bytes},
                    {"loaded_bytes_per_token", BytesPerToken(figures)},
                    {"stall_share", figures.stall_share()}});
  }
  const OffloadWork& work = command.options.work;
  std::cout << nlohmann::ordered_json{{"model", sweep.model},
                                      {"commit", BuildCommit()},
                                      {"link", work.engine.experts.simulated_link},
                                      {"forced_routing", ToJson(work.routing)},
                                      {"rows", rows}}
                   .dump()
            << "\n";
}

// Speed against residency: a line for each codec and batch size.
absl::Status Plot(const Sweep& sweep, const std::string& folder) {
  LineChart chart{.title = absl::StrCat(sweep.model, ": speed by residency"),
                  .x = {.label = "experts that have slots", .is_share = true},
                  .y = {.label = "tokens/s", .is_share = false},
                  .series = {}};
  for (const SweepRow& row : sweep.rows) {
    if (!row.row.control.empty()) continue;
    std::string name = absl::StrCat(row.codec, ", batch ", row.row.batch_size);
    if (chart.series.empty() || chart.series.back().name != name) {
      LineChart::Series& series = chart.series.emplace_back();
      series.name = std::move(name);
    }
    chart.series.back().points.emplace_back(row.residency / 100.0,
                                            row.row.tokens_per_second.median);
  }
  for (LineChart::Series& series : chart.series) {
    std::sort(series.points.begin(), series.points.end());
  }
  return WritePlot(folder, absl::StrCat("sweep_", sweep.model), chart);
}

absl::Status RunSweep(SweepCommand& command, const Logger& logger) {
  SweepOptions& options = command.options;
  if (!command.text_file.empty()) {
    PREGATE_ASSIGN_OR_RETURN(options.work.text, ReadText(command.text_file));
  }
  PREGATE_ASSIGN_OR_RETURN(options.work.routing, ReadForcedRouting(command.routing));
  Progress progress("sweeping", NumTurns(options));
  PREGATE_ASSIGN_OR_RETURN(const Sweep sweep,
                           SweepOffload(options, logger, [&] { progress.Advance(1); }));
  if (command.json) {
    PrintJson(command, sweep);
  } else {
    PrintTable(command, sweep);
  }
  return command.plot_folder.empty() ? absl::OkStatus() : Plot(sweep, command.plot_folder);
}

// A list of what --expert-codec takes.
Flag CodecsFlag(std::vector<std::string>& target) {
  return {.name = "expert-codec",
          .value_name = "NAME,NAME",
          .help = "none, int8, int4, sparse or auto (default none,int8)",
          .set = [&target](absl::string_view text) -> absl::Status {
            EngineOptions scratch;
            const std::vector<Flag> flags = EngineFlags(scratch);
            const auto codec = std::find_if(flags.begin(), flags.end(), [](const Flag& flag) {
              return flag.name == "expert-codec";
            });
            const std::vector<std::string> codecs = absl::StrSplit(text, ',');
            for (const std::string& name : codecs) PREGATE_RETURN_IF_ERROR(codec->set(name));
            target = codecs;
            return absl::OkStatus();
          }};
}

}  // namespace

Subcommand AddSweep(CLI::App& program) {
  const auto command = std::make_shared<SweepCommand>();
  SweepOptions& options = command->options;
  CLI::App* const app = program.add_subcommand(
      "sweep", "Speed by residency, codec and batch size, beside everything resident");
  AddEngineFlags(*app,
                 options.work.engine,
                 {"model",
                  "device",
                  "dtype",
                  "threads",
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
      {CountsFlag("residency",
                  "percent of the experts that have slots (default 10,25,50,100)",
                  1,
                  100,
                  options.residencies),
       CodecsFlag(options.codecs),
       CountsFlag(
           "batch-size", "sequences side by side (default 1,8)", 1, 4096, options.batch_sizes),
       TextFlag("text",
                "FILE",
                "what is read, or zstd of it (default: random tokens)",
                command->text_file),
       CountFlag(
           "input-len", "tokens of each prompt (default 32)", 1, 65536, options.work.input_len),
       CountFlag(
           "output-len", "steps that are timed (default 64)", 1, 65536, options.work.output_len),
       CountFlag("iterations", "turns that count (default 5)", 1, 10000, options.iterations),
       CountFlag("warmup", "turns before them (default 1)", 0, 10000, options.warmup)});
  AddFlags(*app, FlagsOf(command->routing));
  AddFlags(*app,
           {TextFlag("plot", "DIR", "write a picture (SVG) into the folder", command->plot_folder),
            SwitchFlag("json", "print one JSON object", command->json)});
  return {.app = app,
          .run = [command](const Logger& logger) { return RunSweep(*command, logger); }};
}

}  // namespace pregate
