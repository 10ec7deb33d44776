#include <iostream>
#include <memory>
#include <string>

#include "absl/strings/str_format.h"
#include "bench/corpus.h"
#include "bench/offload_comparison.h"
#include "bench/subcommands.h"
#include "core/base/bytes.h"
#include "core/base/status_macros.h"
#include "nlohmann/json.hpp"
#include "tools/cli.h"

#ifndef PREGATE_COMMIT
#define PREGATE_COMMIT ""
#endif

namespace pregate {
namespace {

struct CompareCommand {
  OffloadComparisonOptions options;
  std::string text_file;
  bool json = false;
};

double Share(uint64_t part, const OffloadRow& row) {
  const uint64_t all = row.lookups[0] + row.lookups[1] + row.lookups[2];
  return all == 0 ? 0 : static_cast<double>(part) / static_cast<double>(all);
}

void PrintTable(const OffloadComparison& comparison) {
  std::cout << absl::StrFormat("model %s, codec %s", comparison.model, comparison.codec);
  if (comparison.record_seconds > 0) {
    std::cout << absl::StrFormat(", link %s: an expert's copy takes %.2f ms",
                                 comparison.link,
                                 comparison.record_seconds * 1e3);
  }
  if (comparison.layer_seconds > 0) {
    std::cout << absl::StrFormat(", a layer's computing %.2f ms", comparison.layer_seconds * 1e3);
  }
  std::cout << "\n"
            << absl::StrFormat("%-15s %6s %9s %17s %6s %6s %6s %9s %6s %9s %8s %8s\n",
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
        "%-15s %6d %9.1f %17s %6.3f %6.3f %6.3f %9s %5.1f%% %9s %8s %8s\n",
        row.control.empty() ? row.speculation : absl::StrCat("= ", row.control),
        row.num_slots,
        row.tokens_per_second.median,
        absl::StrFormat("(%.1f..%.1f)", row.tokens_per_second.min, row.tokens_per_second.max),
        Share(row.lookups[0], row),
        Share(row.lookups[1], row),
        Share(row.lookups[2], row),
        FormatBytes(row.loaded_bytes),
        100 * row.stall_seconds / row.seconds,
        FormatBytes(row.prefetched.useful),
        FormatBytes(row.prefetched.late),
        FormatBytes(row.prefetched.wasted));
  }
  std::cout << "= marks the controls. Every way gave the same logits, to the bit.\n";
}

void PrintJson(const OffloadComparison& comparison) {
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const OffloadRow& row : comparison.rows) {
    rows.push_back(
        {{"speculation", row.speculation},
         {"control",
          row.control.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(row.control)},
         {"residency", static_cast<double>(row.num_slots) / comparison.num_experts},
         {"batch", row.batch_size},
         {"runs", row.runs},
         {"tokens_per_second",
          {{"median", row.tokens_per_second.median},
           {"min", row.tokens_per_second.min},
           {"max", row.tokens_per_second.max}}},
         {"hit_rate", Share(row.lookups[0], row)},
         {"late_hit_rate", Share(row.lookups[1], row)},
         {"miss_rate", Share(row.lookups[2], row)},
         {"loaded_bytes", row.loaded_bytes},
         {"stall_share", row.stall_seconds / row.seconds},
         {"prefetch_bytes",
          {{"useful", row.prefetched.useful},
           {"late", row.prefetched.late},
           {"wasted", row.prefetched.wasted},
           {"cancelled", row.prefetched.cancelled},
           {"pending", row.prefetched.pending}}}});
  }
  std::cout << nlohmann::ordered_json{{"model", comparison.model},
                                      {"commit", PREGATE_COMMIT},
                                      {"codec", comparison.codec},
                                      {"link", comparison.link},
                                      {"rows", rows}}
                   .dump()
            << "\n";
}

absl::Status RunCompare(CompareCommand& command, const Logger& logger) {
  OffloadComparisonOptions& options = command.options;
  if (!command.text_file.empty()) {
    PREGATE_ASSIGN_OR_RETURN(options.text, ReadText(command.text_file));
  }
  if (options.engine.experts.capacity.empty()) options.engine.experts.capacity = "25%";
  options.engine.max_running = std::max(options.engine.max_running, options.batch_size);
  Progress progress("comparing", MostTurns(options));
  PREGATE_ASSIGN_OR_RETURN(const OffloadComparison comparison,
                           CompareOffload(options, logger, [&] { progress.Advance(1); }));
  if (command.json) {
    PrintJson(comparison);
  } else {
    PrintTable(comparison);
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
                 options.engine,
                 {"model",
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
                  "pace the link so that an expert's copy takes as long as a layer's computing",
                  options.balance_link),
       TextFlag("text",
                "FILE",
                "what is read, or zstd of it (default: random tokens)",
                command->text_file),
       CountFlag("batch-size", "sequences side by side (default 1)", 1, 4096, options.batch_size),
       CountFlag("input-len", "tokens of each prompt (default 32)", 1, 65536, options.input_len),
       CountFlag("output-len", "steps that are timed (default 64)", 1, 65536, options.output_len),
       CountFlag("iterations", "turns that count (default 5)", 1, 10000, options.iterations),
       CountFlag("warmup", "turns before them (default 1)", 0, 10000, options.warmup),
       SwitchFlag("json", "print one JSON object", command->json)});
  return {.app = app,
          .run = [command](const Logger& logger) { return RunCompare(*command, logger); }};
}

}  // namespace pregate
