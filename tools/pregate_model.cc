// pregate-model: looks at model folders, packs their experts, and makes ones with random weights.
#include <cstdint>
#include <filesystem>
#include <iostream>
#include <limits>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "core/base/bytes.h"
#include "core/base/status_macros.h"
#include "core/model/pack_experts.h"
#include "tools/cli.h"
#include "tools/inspect.h"
#include "tools/pack_model.h"
#include "tools/read_json.h"
#include "tools/synthesize.h"
#include "tools/verify.h"

namespace pregate {
namespace {

constexpr char kProgram[] = "pregate-model";

struct CommandLine {
  bool json = false;
  std::string folder;
  std::string out;
  std::string config;
  std::string shape;
  std::string dtype = "auto";
  std::optional<Codec> codec;
  bool pack = false;
  uint32_t seed = 0;
};

Flag CodecFlag(std::string help, std::optional<Codec>& target) {
  return {.name = "codec",
          .value_name = "none|int8|int4|sparse",
          .help = std::move(help),
          .set = [&target](absl::string_view value) -> absl::Status {
            PREGATE_ASSIGN_OR_RETURN(target, ParseCodec(value));
            return absl::OkStatus();
          }};
}

void AddPack(CLI::App& app, CommandLine& line) {
  CLI::App* pack = app.add_subcommand("pack", "Turn a checkpoint into dense tensors and a pack");
  pack->add_option("DIR", line.folder, "model folder in Hugging Face's layout")
      ->required()
      ->type_name("");
  pack->add_option("OUT", line.out, "folder to make; a killed run is gone on with")
      ->required()
      ->type_name("");
  AddFlags(*pack,
           {CodecFlag("of the experts (default none); int8_dynamic, int4_grouped and "
                      "structured_sparse are taken as well",
                      line.codec),
            ChoiceFlag("dtype",
                       {"auto", "float32", "bfloat16"},
                       "of experts without a codec (default auto: the checkpoint's)",
                       line.dtype)});
}

void AddVerify(CLI::App& app, CommandLine& line) {
  CLI::App* verify =
      app.add_subcommand("verify", "Look at every byte of a pack; name what is damaged, exit 1");
  verify->add_option("OUT", line.folder, "folder made by pack or synthesize --pack, or a pack")
      ->required()
      ->type_name("");
}

void AddInspect(CLI::App& app, CommandLine& line) {
  CLI::App* inspect = app.add_subcommand("inspect", "Show what a model folder or a pack holds");
  inspect->add_option("DIR", line.folder, "model folder, packed or not, or a pack")
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
       ChoiceFlag("shape",
                  {"S", "G", "Q", "M"},
                  "instead of --config: the prototype's Switch, or the sizes of gpt-oss-20b, "
                  "Qwen3-30B-A3B, Mixtral-8x7B",
                  line.shape),
       ChoiceFlag("dtype",
                  {"auto", "float32", "bfloat16"},
                  "of the weights (default auto: the config's, else float32)",
                  line.dtype),
       SwitchFlag("pack", "write a packed folder, as `pack` does", line.pack),
       CodecFlag("of the pack's experts (default none)", line.codec),
       CountFlag("seed",
                 "the same seed gives the same bytes (default 0)",
                 0,
                 std::numeric_limits<uint32_t>::max(),
                 line.seed)});
}

// Nothing for "auto".
std::optional<Dtype> DtypeOf(const CommandLine& line) {
  for (const Dtype dtype : {Dtype::kFloat32, Dtype::kBfloat16}) {
    if (line.dtype == DtypeName(dtype)) return dtype;
  }
  return std::nullopt;
}

absl::Status RunPack(const CommandLine& line) {
  const Codec codec = line.codec.value_or(Codec::kNone);
  PREGATE_ASSIGN_OR_RETURN(
      const PackedModel packed,
      PackModel({.folder = line.folder, .out = line.out, .codec = codec, .dtype = DtypeOf(line)}));
  std::cout << absl::StrCat(line.out,
                            ": ",
                            packed.num_experts,
                            " experts, codec ",
                            CodecName(codec),
                            ", ",
                            FormatBytes(packed.pack_bytes),
                            " in ",
                            kPackName,
                            "; ",
                            FormatBytes(packed.dense_bytes),
                            " in ",
                            kDenseName,
                            "\n");
  return absl::OkStatus();
}

absl::Status RunVerify(const CommandLine& line) {
  PREGATE_ASSIGN_OR_RETURN(const Verification verification, Verify(line.folder));
  for (const absl::Status& damage : verification.damages) ReportFailure(kProgram, damage);
  if (!verification.damages.empty()) {
    std::string summary = absl::StrCat(line.folder,
                                       ": damaged are ",
                                       verification.damaged_records,
                                       " of ",
                                       verification.num_records,
                                       " experts");
    if (verification.num_tensors > 0) {
      absl::StrAppend(&summary,
                      " and ",
                      verification.damaged_tensors,
                      " of ",
                      verification.num_tensors,
                      " tensors");
    }
    return absl::DataLossError(summary);
  }
  std::cout << absl::StrCat(line.folder, ": ", verification.num_records, " experts");
  if (verification.num_tensors > 0) {
    std::cout << absl::StrCat(" and ", verification.num_tensors, " dense tensors");
  }
  std::cout << absl::StrCat(", ", FormatBytes(verification.bytes), ", all as they were written\n");
  return absl::OkStatus();
}

absl::Status RunInspect(const CommandLine& line) {
  std::error_code ignored;
  if (std::filesystem::is_regular_file(line.folder, ignored)) {
    PREGATE_ASSIGN_OR_RETURN(const PackInspection inspection, InspectPack(line.folder));
    std::cout << (line.json ? InspectionJson(inspection) + "\n" : InspectionTable(inspection));
    return absl::OkStatus();
  }
  PREGATE_ASSIGN_OR_RETURN(const ModelInspection inspection, Inspect(line.folder));
  std::cout << (line.json ? InspectionJson(inspection) + "\n" : InspectionTable(inspection));
  return absl::OkStatus();
}

// As newer and older files of Hugging Face spell it; null without one.
nlohmann::ordered_json ConfigDtype(const nlohmann::ordered_json& config) {
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
  const bool is_bfloat16 = ConfigDtype(options.config) == "bfloat16";
  options.dtype = DtypeOf(line).value_or(is_bfloat16 ? Dtype::kBfloat16 : Dtype::kFloat32);
  if (line.pack) options.pack = line.codec.value_or(Codec::kNone);
  absl::Status status = Synthesize(options);
  if (line.config.empty() || !absl::IsInvalidArgument(status)) return status;
  return absl::InvalidArgumentError(absl::StrCat(line.config, ": ", status.message()));
}

// What is wrong with the command line beyond its grammar.
absl::Status CheckSynthesize(const CommandLine& line) {
  if (line.config.empty() == line.shape.empty()) {
    return absl::InvalidArgumentError("synthesize needs either --config or --shape");
  }
  if (line.codec.has_value() && !line.pack) {
    return absl::InvalidArgumentError("--codec goes with --pack");
  }
  return absl::OkStatus();
}

absl::Status Run(const CLI::App& app, const CommandLine& line) {
  if (app.got_subcommand("pack")) return RunPack(line);
  if (app.got_subcommand("verify")) return RunVerify(line);
  if (app.got_subcommand("inspect")) return RunInspect(line);
  return RunSynthesize(line);
}

int Main(int argc, char** argv) {
  CLI::App app("Looks at model folders, packs their experts, makes ones with random weights.",
               kProgram);
  app.require_subcommand(1);
  CommandLine line;
  AddInspect(app, line);
  AddPack(app, line);
  AddVerify(app, line);
  AddSynthesize(app, line);
  if (const std::optional<int> code = ParseCommandLine(app, argc, argv)) return *code;
  if (app.got_subcommand("synthesize")) {
    const absl::Status usage = CheckSynthesize(line);
    if (!usage.ok()) return ReportUsageError(kProgram, usage);
  }
  const absl::Status status = Run(app, line);
  return status.ok() ? kExitOk : ReportFailure(kProgram, status);
}

}  // namespace
}  // namespace pregate

// NOLINTNEXTLINE(bugprone-exception-escape): nlohmann-json throws for wrong types, which are
// checked
int main(int argc, char** argv) { return pregate::Main(argc, argv); }
