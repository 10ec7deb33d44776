// pregate-model: looks at model folders and makes ones with random weights.
#include <cstdint>
#include <iostream>
#include <limits>
#include <optional>
#include <string>

#include "core/base/status_macros.h"
#include "tools/cli.h"
#include "tools/inspect.h"
#include "tools/read_json.h"
#include "tools/synthesize.h"

namespace pregate {
namespace {

constexpr char kProgram[] = "pregate-model";

struct CommandLine {
  bool json = false;
  std::string folder;
  std::string config;
  std::string shape;
  std::string dtype = "auto";
  uint32_t seed = 0;
};

void AddInspect(CLI::App& app, CommandLine& line) {
  CLI::App* inspect = app.add_subcommand("inspect", "Show what a model folder holds");
  inspect->add_option("DIR", line.folder, "model folder in Hugging Face's layout")
      ->required()
      ->type_name("");
  inspect->add_flag("--json", line.json, "print one JSON object");
}

void AddSynthesize(CLI::App& app, CommandLine& line) {
  CLI::App* synthesize =
      app.add_subcommand("synthesize", "Make a model folder with random weights");
  synthesize->add_option("OUT", line.folder, "folder to make")->required()->type_name("");
  AddFlags(
      *synthesize,
      {TextFlag(
           "config", "FILE", "config.json of a switch_pregate or qwen3_moe model", line.config),
       ChoiceFlag(
           "shape",
           {"S"},
           "instead of --config; S: 6 layers x 8 experts, 512 -> 2048 -> 512, 140 M parameters",
           line.shape),
       ChoiceFlag("dtype",
                  {"auto", "float32", "bfloat16"},
                  "of the weights (default auto: the config's, else float32)",
                  line.dtype),
       CountFlag("seed",
                 "the same seed gives the same bytes (default 0)",
                 0,
                 std::numeric_limits<uint32_t>::max(),
                 line.seed)});
}

absl::Status RunInspect(const CommandLine& line) {
  PREGATE_ASSIGN_OR_RETURN(const ModelInspection inspection, Inspect(line.folder));
  std::cout << (line.json ? InspectionJson(inspection) + "\n" : InspectionTable(inspection));
  return absl::OkStatus();
}

// As newer and older files of Hugging Face spell it; null without one.
nlohmann::ordered_json DtypeOf(const nlohmann::ordered_json& config) {
  const auto dtype = config.find("dtype");
  if (dtype != config.end()) return *dtype;
  const auto torch_dtype = config.find("torch_dtype");
  return torch_dtype == config.end() ? nlohmann::ordered_json() : *torch_dtype;
}

absl::Status RunSynthesize(const CommandLine& line) {
  SynthesizeOptions options;
  options.seed = line.seed;
  options.out = line.folder;
  if (line.config.empty()) {
    options.config = ShapeConfig(line.shape);
  } else {
    PREGATE_ASSIGN_OR_RETURN(options.config, ReadJson(line.config));
  }
  if (line.dtype != "auto") {
    options.dtype = line.dtype;
  } else if (DtypeOf(options.config) == "bfloat16") {
    options.dtype = "bfloat16";
  }
  absl::Status status = Synthesize(options);
  if (line.config.empty() || !absl::IsInvalidArgument(status)) return status;
  return absl::InvalidArgumentError(absl::StrCat(line.config, ": ", status.message()));
}

int Main(int argc, char** argv) {
  CLI::App app("Looks at model folders, and makes ones with random weights.", kProgram);
  app.require_subcommand(1);
  CommandLine line;
  AddInspect(app, line);
  AddSynthesize(app, line);
  if (const std::optional<int> code = ParseCommandLine(app, argc, argv)) return *code;
  if (app.got_subcommand("synthesize") && line.config.empty() == line.shape.empty()) {
    return ReportUsageError(
        kProgram, absl::InvalidArgumentError("synthesize needs either --config or --shape"));
  }
  const absl::Status status =
      app.got_subcommand("inspect") ? RunInspect(line) : RunSynthesize(line);
  return status.ok() ? kExitOk : ReportFailure(kProgram, status);
}

}  // namespace
}  // namespace pregate

// NOLINTNEXTLINE(bugprone-exception-escape): nlohmann-json throws for wrong types, which are
// checked
int main(int argc, char** argv) { return pregate::Main(argc, argv); }
