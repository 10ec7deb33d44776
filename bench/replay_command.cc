#include <algorithm>
#include <functional>
#include <iostream>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "bench/replay_cases.h"
#include "bench/replay_plots.h"
#include "bench/subcommands.h"
#include "bench/trace_json.h"
#include "core/base/status_macros.h"
#include "nlohmann/json.hpp"
#include "tools/cli.h"

namespace pregate {
namespace {

struct ReplayCommand {
  std::string trace;
  std::vector<std::string> capacities = {"25%", "50%"};
  std::vector<uint32_t> streams = {1};
  std::vector<std::string> policies = {"ewma", "lru", "belady"};
  std::vector<std::string> predictors;
  double simulated_recall = 0;
  std::vector<uint32_t> simulated_horizons;  // none given: 1
  uint32_t loads_per_layer = 8;
  uint32_t threads = 0;
  std::string convert;
  std::string plot;
  bool json = false;
};

// NAME,NAME of `names`, or "all" of them.
Flag NamesFlag(std::string name,
               std::string help,
               std::vector<std::string> names,
               std::vector<std::string>& target) {
  const auto set = [names = std::move(names), &target](absl::string_view text) -> absl::Status {
    if (text == "all") {
      target = names;
      return absl::OkStatus();
    }
    std::vector<std::string> chosen;
    for (const absl::string_view piece : absl::StrSplit(text, ',')) {
      if (std::find(names.begin(), names.end(), piece) == names.end()) {
        return absl::InvalidArgumentError(
            absl::StrCat("'", piece, "' is neither all nor one of ", absl::StrJoin(names, ", ")));
      }
      chosen.emplace_back(piece);
    }
    target = std::move(chosen);
    return absl::OkStatus();
  };
  return {.name = std::move(name), .value_name = "NAME,NAME", .help = std::move(help), .set = set};
}

Flag CapacitiesFlag(std::vector<std::string>& target) {
  return {.name = "capacity",
          .value_name = "25%,96",
          .help = "slots: shares of all experts or numbers (default 25%,50%)",
          .set = [&target](absl::string_view text) -> absl::Status {
            const std::vector<std::string> pieces = absl::StrSplit(text, ',');
            for (const std::string& piece : pieces) {
              PREGATE_RETURN_IF_ERROR(CheckReplayCapacity(piece));
            }
            target = pieces;
            return absl::OkStatus();
          }};
}

ReplayPlan PlanOf(const ReplayCommand& command) {
  ReplayPlan plan;
  plan.policies = command.policies;
  plan.capacities = command.capacities;
  plan.streams = command.streams;
  plan.loads_per_layer = command.loads_per_layer;
  for (const std::string& mode : command.predictors) {
    ReplayPredictor& predictor = plan.predictors.emplace_back();
    predictor.mode = mode;
  }
  if (command.simulated_recall > 0) {
    std::vector<uint32_t> horizons = command.simulated_horizons;
    if (horizons.empty()) horizons = {1};
    for (const uint32_t horizon : horizons) {
      ReplayPredictor& predictor = plan.predictors.emplace_back();
      predictor.simulated = {.recall = command.simulated_recall, .horizon = horizon};
    }
  }
  plan.num_threads = command.threads > 0 ? command.threads : std::thread::hardware_concurrency();
  plan.num_threads = std::max(plan.num_threads, 1U);
  return plan;
}

void PrintCases(const ReplayReport& report) {
  const bool has_predictors = !report.recalls.empty();
  std::cout << absl::StrFormat("%-8s %8s %7s %8s %10s %10s %9s",
                               "policy",
                               "capacity",
                               "slots",
                               "streams",
                               "lookups",
                               "misses",
                               "hit rate");
  if (has_predictors) {
    std::cout << absl::StrFormat(
        "  %-34s %10s %8s %8s", "predictor", "prefetched", "useful", "wasted");
  }
  std::cout << "\n";
  for (const ReplayCase& one : report.cases) {
    const ReplayResult& result = one.result;
    std::cout << absl::StrFormat("%-8s %8s %7d %8d %10d %10d %9.4f",
                                 one.policy,
                                 one.capacity,
                                 one.num_slots,
                                 one.num_streams,
                                 result.lookups,
                                 result.misses(),
                                 result.hit_rate());
    if (has_predictors) {
      std::cout << absl::StrFormat("  %-34s %10d %8.3f %8.3f",
                                   one.predictor,
                                   result.prefetched,
                                   result.useful_share(),
                                   result.wasted_share());
    }
    std::cout << "\n";
  }
}

void PrintRecalls(const ReplayReport& report) {
  bool has_simulated = false;
  std::cout << absl::StrFormat("\n%-34s %12s %8s %12s %12s %8s\n",
                               "predictor",
                               "layers ahead",
                               "streams",
                               "recall at k",
                               "recall at 2k",
                               "wasted");
  for (const RecallCase& one : report.recalls) {
    has_simulated = has_simulated || one.predictor.simulated.has_value();
    std::cout << absl::StrFormat("%-34s %12d %8d %12.4f %12.4f %8.4f\n",
                                 one.predictor.name(),
                                 one.distance,
                                 one.num_streams,
                                 one.evaluation.recall(),
                                 one.evaluation.recall_at_twice(),
                                 one.evaluation.wasted_share());
  }
  if (has_simulated) {
    std::cout << "simulated: the true routing, degraded to that recall; no predictor that a server "
                 "has.\n";
  }
}

void PrintTable(const ReplayReport& report) {
  PrintCases(report);
  if (!report.recalls.empty()) PrintRecalls(report);
  std::cout << absl::StrFormat("%.1f million look-ups per second and core\n",
                               report.lookups_per_second_per_core() / 1e6);
}

nlohmann::ordered_json TraceJson(const RoutingTrace& trace) {
  uint64_t num_tokens = 0;
  for (const RoutingTrace::Sequence& sequence : trace.sequences) {
    num_tokens += trace.num_tokens(sequence);
  }
  return {{"model", trace.model},
          {"num_layers", trace.num_layers},
          {"num_experts", trace.num_experts},
          {"experts_per_token", trace.experts_per_token},
          {"sequences", trace.sequences.size()},
          {"tokens", num_tokens}};
}

nlohmann::ordered_json CaseJson(const ReplayCase& one) {
  const ReplayResult& result = one.result;
  nlohmann::ordered_json json = {{"policy", one.policy},
                                 {"capacity", one.capacity},
                                 {"slots", one.num_slots},
                                 {"streams", one.num_streams},
                                 {"lookups", result.lookups},
                                 {"hits", result.hits},
                                 {"misses", result.misses()},
                                 {"hit_rate", result.hit_rate()}};
  if (one.predictor != kNoPredictor) {
    json["predictor"] = one.predictor;
    json["prefetched"] = result.prefetched;
    json["useful"] = result.useful;
    json["wasted"] = result.wasted;
  }
  return json;
}

nlohmann::ordered_json ToJson(const SimulatedPredictor& simulated) {
  return {{"recall", simulated.recall}, {"horizon", simulated.horizon}};
}

nlohmann::ordered_json RecallJson(const RecallCase& one) {
  nlohmann::ordered_json simulated;  // null
  if (one.predictor.simulated.has_value()) simulated = ToJson(*one.predictor.simulated);
  return {{"predictor", one.predictor.name()},
          {"simulated_predictor", simulated},
          {"layers_ahead", one.distance},
          {"streams", one.num_streams},
          {"recall_at_k", one.evaluation.recall()},
          {"recall_at_2k", one.evaluation.recall_at_twice()},
          {"wasted_share", one.evaluation.wasted_share()}};
}

void PrintJson(const RoutingTrace& trace, const ReplayReport& report) {
  nlohmann::ordered_json results = nlohmann::ordered_json::array();
  for (const ReplayCase& one : report.cases) results.push_back(CaseJson(one));
  nlohmann::ordered_json predictors = nlohmann::ordered_json::array();
  for (const RecallCase& one : report.recalls) predictors.push_back(RecallJson(one));
  const nlohmann::ordered_json json = {
      {"trace", TraceJson(trace)},
      {"results", results},
      {"predictors", predictors},
      {"lookups_per_second_per_core", report.lookups_per_second_per_core()}};
  // A trace may name its model in any bytes.
  std::cout << json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) << "\n";
}

absl::Status RunCommand(const ReplayCommand& command) {
  if (!command.simulated_horizons.empty() && command.simulated_recall == 0) {
    return absl::InvalidArgumentError("--simulated-horizon needs --simulated-recall");
  }
  PREGATE_ASSIGN_OR_RETURN(RoutingTrace read, ReadAnyRoutingTrace(command.trace));
  if (!command.convert.empty()) return WriteRoutingTrace(command.convert, read);
  const auto trace = std::make_shared<const RoutingTrace>(std::move(read));
  const ReplayPlan plan = PlanOf(command);
  ReplayReport report;
  {
    Progress progress("replaying", NumReplays(plan));
    PREGATE_ASSIGN_OR_RETURN(report, RunReplay(trace, plan, [&] { progress.Advance(1); }));
  }
  if (!command.plot.empty()) {
    PREGATE_RETURN_IF_ERROR(WriteReplayPlots(command.plot, *trace, plan, report));
  }
  if (command.json) {
    PrintJson(*trace, report);
  } else {
    PrintTable(report);
  }
  return absl::OkStatus();
}

}  // namespace

Subcommand AddReplay(CLI::App& program) {
  const auto command = std::make_shared<ReplayCommand>();
  CLI::App* const app =
      program.add_subcommand("replay", "A routing trace through eviction policies and predictors");
  AddFlags(
      *app,
      {TextFlag("trace",
                "FILE",
                "recorded routing, in our format or JSON, plain or .gz (required)",
                command->trace),
       CapacitiesFlag(command->capacities),
       CountsFlag("streams", "sequences side by side (default 1)", 1, 65536, command->streams),
       NamesFlag("policy",
                 absl::StrCat(absl::StrJoin(ReplayPolicyNames(), ", "),
                              " or all (default ewma,lru,belady)"),
                 ReplayPolicyNames(),
                 command->policies),
       NamesFlag(
           "predictor",
           absl::StrCat(absl::StrJoin(HistoryPredictorNames(), ", "), " or all (default none)"),
           HistoryPredictorNames(),
           command->predictors),
       NumberFlag("simulated-recall",
                  "also the true routing, degraded to that recall (default 0: not)",
                  0,
                  1,
                  command->simulated_recall),
       CountsFlag("simulated-horizon",
                  "layers ahead that it is known, 1 to 3 (default 1)",
                  1,
                  3,
                  command->simulated_horizons),
       CountFlag("loads-per-layer",
                 "prefetched in a layer's time at most (default 8)",
                 1,
                 65536,
                 command->loads_per_layer),
       CountFlag("threads", "replays at a time (default 0: one a core)", 0, 1024, command->threads),
       TextFlag("convert", "FILE", "write the trace in our format, and end", command->convert),
       TextFlag("plot", "DIR", "write pictures (SVG) into the folder", command->plot),
       SwitchFlag("json", "print one JSON object", command->json)});
  app->get_option("--trace")->required();
  return {.app = app, .run = [command](const Logger&) { return RunCommand(*command); }};
}

}  // namespace pregate
