#include <iostream>
#include <memory>

#include "absl/strings/str_format.h"
#include "bench/lookup_cost.h"
#include "bench/subcommands.h"
#include "core/base/status_macros.h"
#include "core/expert/eviction_policy.h"
#include "nlohmann/json.hpp"
#include "tools/cli.h"

namespace pregate {
namespace {

struct LookupCommand {
  LookupCostOptions options;
  bool json = false;
};

void PrintTable(const LookupCost& cost) {
  const auto print = [](absl::string_view what, const Spread& spread) {
    std::cout << absl::StrFormat("%-24s %s\n", what, RangeText(spread, 0));
  };
  std::cout << absl::StrFormat("%-24s %s\n", "all resident", "ns/layer");
  print("look-up and lease", cost.lookup);
  print("hint", cost.hint);
  print("both", cost.layer);
  for (const LookupCost::Prediction& prediction : cost.predictions) {
    print("predict " + prediction.mode, prediction.cost);
  }
}

void PrintJson(const LookupCostOptions& options, const LookupCost& cost) {
  nlohmann::ordered_json predictions = nlohmann::ordered_json::object();
  for (const LookupCost::Prediction& prediction : cost.predictions) {
    predictions[prediction.mode] = ToJson(prediction.cost);
  }
  const nlohmann::ordered_json json = {{"commit", BuildCommit()},
                                       {"layers", options.num_layers},
                                       {"experts", options.num_experts},
                                       {"top_k", options.top_k},
                                       {"eviction", options.eviction},
                                       {"iterations", options.iterations},
                                       {"lookup_ns", ToJson(cost.lookup)},
                                       {"hint_ns", ToJson(cost.hint)},
                                       {"layer_ns", ToJson(cost.layer)},
                                       {"prediction_ns", predictions}};
  std::cout << json.dump() << "\n";
}

absl::Status RunLookup(const LookupCommand& command) {
  PREGATE_ASSIGN_OR_RETURN(const LookupCost cost, MeasureLookupCost(command.options));
  if (command.json) {
    PrintJson(command.options, cost);
  } else {
    PrintTable(cost);
  }
  return absl::OkStatus();
}

}  // namespace

Subcommand AddLookup(CLI::App& program) {
  const auto command = std::make_shared<LookupCommand>();
  LookupCostOptions& options = command->options;
  CLI::App* const app =
      program.add_subcommand("lookup", "What finding experts costs when all are resident");
  AddFlags(
      *app,
      {CountFlag("layers", "layers (default 48)", 1, 1024, options.num_layers),
       CountFlag("experts", "experts of each layer (default 128)", 1, 1024, options.num_experts),
       CountFlag("top-k", "of them needed in a step (default 8)", 1, 1024, options.top_k),
       ChoiceFlag("policy", EvictionPolicyNames(), "eviction (default ewma)", options.eviction),
       CountFlag("iterations", "measurements (default 7)", 1, 1000, options.iterations),
       SwitchFlag("json", "print one JSON object", command->json)});
  return {.app = app, .run = [command](const Logger&) { return RunLookup(*command); }};
}

}  // namespace pregate
