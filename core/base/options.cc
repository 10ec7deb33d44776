#include "core/base/options.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/base/bytes.h"
#include "core/base/check.h"

namespace pregate {
namespace {

absl::Status SetDevice(absl::string_view text, std::string& device) {
  uint32_t ordinal = 0;
  const bool numbered =
      absl::StartsWith(text, "cuda:") && absl::SimpleAtoi(text.substr(5), &ordinal);
  if (text != "auto" && text != "cpu" && text != "cuda" && !numbered) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", text, "' is not one of auto, cpu, cuda, cuda:N"));
  }
  device = std::string(text);
  return absl::OkStatus();
}

absl::Status SetCodec(absl::string_view text, std::string& codec) {
  // The research prototype's names, for its users.
  const std::pair<absl::string_view, absl::string_view> aliases[] = {
      {"int8_dynamic", "int8"}, {"int4_grouped", "int4"}, {"structured_sparse", "sparse"}};
  for (const auto& [alias, name] : aliases) {
    if (text == alias) text = name;
  }
  return ChoiceFlag("", {"none", "int8", "int4", "sparse", "auto", "adaptive"}, "", codec)
      .set(text);
}

}  // namespace

absl::string_view DtypeName(Dtype dtype) {
  switch (dtype) {
    case Dtype::kFloat32:
      return "float32";
    case Dtype::kBfloat16:
      return "bfloat16";
  }
  PREGATE_CHECK(false, "unknown dtype ", static_cast<int>(dtype));
}

std::string ServedModelName(const EngineOptions& options) {
  if (!options.served_model_name.empty()) return options.served_model_name;
  std::error_code ignored;
  const std::filesystem::path path = std::filesystem::weakly_canonical(options.model, ignored);
  return path.has_filename() ? path.filename().string() : path.parent_path().filename().string();
}

Flag TextFlag(std::string name, std::string value_name, std::string help, std::string& target) {
  return {.name = std::move(name),
          .value_name = std::move(value_name),
          .help = std::move(help),
          .set = [&target](absl::string_view text) {
            target = std::string(text);
            return absl::OkStatus();
          }};
}

Flag ChoiceFlag(std::string name,
                std::vector<std::string> choices,
                std::string help,
                std::string& target) {
  std::string value_name = absl::StrJoin(choices, "|");
  return {.name = std::move(name),
          .value_name = std::move(value_name),
          .help = std::move(help),
          .set = [&target, choices = std::move(choices)](absl::string_view text) {
            if (std::find(choices.begin(), choices.end(), text) == choices.end()) {
              return absl::InvalidArgumentError(
                  absl::StrCat("'", text, "' is not one of ", absl::StrJoin(choices, ", ")));
            }
            target = std::string(text);
            return absl::OkStatus();
          }};
}

Flag CountFlag(
    std::string name, std::string help, uint32_t minimum, uint32_t maximum, uint32_t& target) {
  return {.name = std::move(name),
          .value_name = "N",
          .help = std::move(help),
          .set = [&target, minimum, maximum](absl::string_view text) {
            uint32_t value = 0;
            if (!absl::SimpleAtoi(text, &value) || value < minimum || value > maximum) {
              return absl::InvalidArgumentError(absl::StrCat(
                  "'", text, "' is not a whole number from ", minimum, " to ", maximum));
            }
            target = value;
            return absl::OkStatus();
          }};
}

Flag NumberFlag(
    std::string name, std::string help, double minimum, double maximum, double& target) {
  return {.name = std::move(name),
          .value_name = "X",
          .help = std::move(help),
          .set = [&target, minimum, maximum](absl::string_view text) {
            double value = 0;
            // Written so that NaN is refused.
            if (!absl::SimpleAtod(text, &value) || !(value >= minimum && value <= maximum)) {
              return absl::InvalidArgumentError(
                  absl::StrCat("'", text, "' is not a number from ", minimum, " to ", maximum));
            }
            target = value;
            return absl::OkStatus();
          }};
}

Flag BytesFlag(std::string name, std::string help, uint64_t& target) {
  return {.name = std::move(name),
          .value_name = "SIZE",
          .help = std::move(help),
          .set = [&target](absl::string_view text) {
            const absl::StatusOr<uint64_t> bytes = ParseBytes(text);
            if (bytes.ok()) target = *bytes;
            return bytes.status();
          }};
}

Flag SwitchFlag(std::string name, std::string help, bool& target) {
  return {
      .name = std::move(name),
      .value_name = "",
      .help = std::move(help),
      .set = [&target](absl::string_view text) {
        if (text != "true" && text != "false") {
          return absl::InvalidArgumentError(absl::StrCat("'", text, "' is not one of true, false"));
        }
        target = text == "true";
        return absl::OkStatus();
      }};
}

namespace {

std::vector<Flag> ExpertFlags(ExpertOptions& options) {
  return {
      {.name = "expert-codec",
       .value_name = "none|int8|int4|sparse|auto|adaptive",
       .help = "encoding of the experts (default: as packed, else none)",
       .set = [&options](absl::string_view text) { return SetCodec(text, options.codec); }},
      TextFlag("expert-capacity",
               "25%|N|SIZE",
               "experts on the device (default: by the memory plan)",
               options.capacity),
      ChoiceFlag("memory-strategy",
                 {"auto", "single_async", "double_buffer", "streaming", "cpu_offload"},
                 "how slots are used (default auto)",
                 options.memory_strategy),
      ChoiceFlag("eviction",
                 {"ewma", "lfru", "lru", "lfu", "fifo"},
                 "which expert leaves first (default ewma)",
                 options.eviction),
      ChoiceFlag("speculation",
                 {"none", "layer_minus_1", "multi_layer", "gate_lookahead", "pregate", "adaptive"},
                 "what predicts experts (default: pregate where the model has them, else adaptive)",
                 options.speculation),
      CountFlag("speculation-lookahead",
                "layers to predict ahead (default 1)",
                1,
                2,
                options.speculation_lookahead),
      NumberFlag("speculation-aggressiveness",
                 "share of the predicted probability to cover (default 0.7)",
                 0,
                 1,
                 options.speculation_aggressiveness),
      NumberFlag("speculation-confidence",
                 "least probability to act on (default 0)",
                 0,
                 1,
                 options.speculation_confidence),
      TextFlag("speculation-state",
               "FILE",
               "keeps what predictors learned (default: not kept)",
               options.speculation_state),
      ChoiceFlag("unified-memory",
                 {"auto", "on", "off"},
                 "experts are used where they lie in host memory (default auto)",
                 options.unified_memory),
      TextFlag("simulated-link",
               "BANDWIDTH,LATENCY",
               "paces the CPU's copies: 25GiB/s,10us (default: no link)",
               options.simulated_link),
      BytesFlag("gpu-memory-budget",
                "device memory to use (default: 90 % of what is free)",
                options.gpu_memory_budget),
      BytesFlag("host-memory-budget",
                "host memory for experts (default: all of them, if they fit)",
                options.host_memory_budget),
      TextFlag("record-routing",
               "FILE",
               "writes which experts were chosen (default: not written)",
               options.record_routing),
      NumberFlag("verify-slots",
                 "share of used slots whose bytes are checked (default 0)",
                 0,
                 1,
                 options.verify_slots),
      SwitchFlag("layer-metrics", "export metrics of each layer, too", options.layer_metrics),
      TextFlag("pack-folder",
               "DIR",
               "keeps packed experts (default: the user's cache folder)",
               options.pack_folder),
  };
}

}  // namespace

std::vector<Flag> EngineFlags(EngineOptions& options) {
  std::vector<Flag> flags = {
      TextFlag("model", "DIR", "model folder in Hugging Face's layout (required)", options.model),
      TextFlag("served-model-name",
               "NAME",
               "name that requests use (default: the folder's name)",
               options.served_model_name),
      {.name = "device",
       .value_name = "auto|cpu|cuda[:N]",
       .help = "where to compute (default auto: the first GPU, else the CPU)",
       .set = [&options](absl::string_view text) { return SetDevice(text, options.device); }},
      ChoiceFlag("dtype",
                 {"auto", "float32", "bfloat16"},
                 "of weights and products (default auto: the checkpoint's)",
                 options.dtype),
      ChoiceFlag("cpu-isa",
                 {"auto", "baseline", "avx2", "avx512"},
                 "CPU instructions to use (default auto: detected)",
                 options.cpu_isa),
      CountFlag("threads",
                "threads of the CPU's products (default 0: what pays for the model)",
                0,
                1024,
                options.threads),
      CountFlag("max-batch-tokens",
                "tokens in one step (default 512)",
                1,
                65536,
                options.max_batch_tokens),
      CountFlag(
          "max-running", "sequences advanced together (default 64)", 1, 4096, options.max_running),
      CountFlag("max-queued", "requests that may wait (default 256)", 1, 65536, options.max_queued),
      CountFlag("max-context",
                "tokens of prompt and answer (default 0: the model's own)",
                0,
                1u << 24,
                options.max_context),
      CountFlag("kv-block-size",
                "tokens in a block of the KV cache (default 16)",
                1,
                1024,
                options.kv_block_size),
  };
  for (Flag& flag : ExpertFlags(options.experts)) flags.push_back(std::move(flag));
  return flags;
}

}  // namespace pregate
