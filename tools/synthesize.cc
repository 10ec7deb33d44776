#include "tools/synthesize.h"

#include <algorithm>
#include <bit>
#include <map>
#include <memory>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/base/check.h"
#include "core/base/status_macros.h"
#include "core/model/pack_experts.h"
#include "core/storage/safetensors.h"
#include "core/storage/whole_file.h"
#include "tools/byte_tokenizer.h"
#include "tools/cli.h"
#include "tools/model_shape.h"
#include "tools/normal_numbers.h"
#include "tools/pack_model.h"
#include "tools/synthesize_pack.h"
#include "tools/unfinished_folder.h"

namespace pregate {
namespace {

// The nearest bfloat16, of two equally near ones the even one. Finite values only.
uint16_t ToBfloat16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

absl::Status AppendValues(const std::vector<float>& values,
                          TensorDtype dtype,
                          SafetensorsWriter& writer) {
  if (dtype == TensorDtype::kF32) {
    return writer.Append(absl::MakeConstSpan(reinterpret_cast<const std::byte*>(values.data()),
                                             values.size() * sizeof(float)));
  }
  std::vector<uint16_t> rounded(values.size());
  for (size_t i = 0; i < values.size(); ++i) rounded[i] = ToBfloat16(values[i]);
  return writer.Append(absl::MakeConstSpan(reinterpret_cast<const std::byte*>(rounded.data()),
                                           rounded.size() * sizeof(uint16_t)));
}

uint64_t NumElements(const TensorSpec& spec) {
  uint64_t count = 1;
  for (const int64_t extent : spec.shape) count *= static_cast<uint64_t>(extent);
  return count;
}

absl::Status WriteWeights(const std::string& path,
                          const std::vector<RandomTensor>& tensors,
                          uint64_t seed) {
  constexpr uint64_t kChunk = 1 << 20;  // elements in memory at a time
  std::vector<TensorSpec> specs;
  uint64_t total = 0;
  for (const RandomTensor& tensor : tensors) {
    specs.push_back(tensor.spec);
    total += NumElements(tensor.spec);
  }
  PREGATE_ASSIGN_OR_RETURN(std::unique_ptr<SafetensorsWriter> writer,
                           SafetensorsWriter::Create(path, specs, {{"format", "pt"}}));
  Progress progress("writing weights", total);
  for (const RandomTensor& tensor : tensors) {
    NormalNumbers numbers(seed, tensor.spec.name);
    for (uint64_t rest = NumElements(tensor.spec); rest > 0;) {
      std::vector<float> values(std::min(rest, kChunk));
      numbers.Fill(absl::MakeSpan(values), tensor.mean, tensor.deviation);
      PREGATE_RETURN_IF_ERROR(AppendValues(values, tensor.spec.dtype, *writer));
      rest -= values.size();
      progress.Advance(values.size());
    }
  }
  return writer->Finish();
}

absl::Status Fill(const UnfinishedFolder& folder, const SynthesizeOptions& options) {
  PREGATE_ASSIGN_OR_RETURN(const ModelShape shape, ParseModelShape(options.config));
  PREGATE_ASSIGN_OR_RETURN(
      const TokenizerFiles tokenizer,
      MakeByteTokenizer(shape.vocab_size, shape.eos_token_ids, shape.max_context));
  nlohmann::ordered_json config = options.config;
  config.erase("torch_dtype");
  config["dtype"] = std::string(DtypeName(options.dtype));
  nlohmann::ordered_json generation = nlohmann::ordered_json::object();
  if (!shape.eos_token_ids.empty()) generation["eos_token_id"] = config["eos_token_id"];
  const std::pair<const char*, std::string> files[] = {
      {"config.json", config.dump(2) + "\n"},
      {"generation_config.json", generation.dump(2) + "\n"},
      {"tokenizer.json", tokenizer.tokenizer},
      {"tokenizer_config.json", tokenizer.tokenizer_config}};
  for (const auto& [name, content] : files) {
    PREGATE_RETURN_IF_ERROR(WriteWholeFile(folder / name, content));
  }

  std::vector<RandomTensor> tensors =
      TensorsOf(shape, options.dtype == Dtype::kFloat32 ? TensorDtype::kF32 : TensorDtype::kBf16);
  if (!options.pack.has_value()) {
    return WriteWeights(folder / "model.safetensors", tensors, options.seed);
  }
  tensors.erase(std::remove_if(tensors.begin(),
                               tensors.end(),
                               [](const RandomTensor& tensor) {
                                 return absl::StrContains(tensor.spec.name, ".experts.");
                               }),
                tensors.end());
  PREGATE_RETURN_IF_ERROR(WriteWeights(folder / kDenseName, tensors, options.seed));
  PREGATE_ASSIGN_OR_RETURN(const Safetensors dense, Safetensors::Open(folder / kDenseName));
  std::vector<std::string> names;
  for (const auto& [name, tensor] : dense.tensors()) names.push_back(name);
  PREGATE_RETURN_IF_ERROR(WriteDenseChecksums(folder.path(), names, dense));
  return SynthesizePack(folder.path(), *options.pack, options.dtype, options.seed);
}

nlohmann::ordered_json SwitchConfig() {
  return {{"architectures", {"SwitchPregateForCausalLM"}},
          {"model_type", "switch_pregate"},
          {"vocab_size", 32000},
          {"hidden_size", 512},
          {"num_hidden_layers", 6},
          {"num_attention_heads", 8},
          {"num_key_value_heads", 8},
          {"head_dim", 64},
          {"moe_intermediate_size", 2048},
          {"num_experts", 8},
          {"num_experts_per_tok", 1},
          {"hidden_act", "relu"},
          {"use_pregate", true},
          {"max_position_embeddings", 1024},
          {"rope_theta", 10000.0},
          {"rms_norm_eps", 1e-6},
          {"tie_word_embeddings", false},
          {"bos_token_id", nullptr},
          {"eos_token_id", 0}};
}

struct Qwen3MoeSizes {
  int vocab_size, hidden, num_layers, num_heads, num_kv_heads, head_dim;
  int expert_width, num_experts, num_experts_per_token, max_context;
};

nlohmann::ordered_json Qwen3MoeConfig(const Qwen3MoeSizes& sizes) {
  return {{"architectures", {"Qwen3MoeForCausalLM"}},
          {"model_type", "qwen3_moe"},
          {"vocab_size", sizes.vocab_size},
          {"hidden_size", sizes.hidden},
          {"num_hidden_layers", sizes.num_layers},
          {"num_attention_heads", sizes.num_heads},
          {"num_key_value_heads", sizes.num_kv_heads},
          {"head_dim", sizes.head_dim},
          {"moe_intermediate_size", sizes.expert_width},
          {"num_experts", sizes.num_experts},
          {"num_experts_per_tok", sizes.num_experts_per_token},
          {"norm_topk_prob", true},
          {"hidden_act", "silu"},
          {"max_position_embeddings", sizes.max_context},
          {"rope_theta", 1000000.0},
          {"rms_norm_eps", 1e-6},
          {"tie_word_embeddings", false},
          {"dtype", "bfloat16"},
          {"bos_token_id", nullptr},
          {"eos_token_id", 0}};
}

}  // namespace

nlohmann::ordered_json ShapeConfig(const std::string& name) {
  if (name == "S") return SwitchConfig();
  if (name == "G") {
    return Qwen3MoeConfig({.vocab_size = 201088,
                           .hidden = 2880,
                           .num_layers = 24,
                           .num_heads = 64,
                           .num_kv_heads = 8,
                           .head_dim = 64,
                           .expert_width = 2880,
                           .num_experts = 32,
                           .num_experts_per_token = 4,
                           .max_context = 131072});
  }
  if (name == "Q") {
    return Qwen3MoeConfig({.vocab_size = 151936,
                           .hidden = 2048,
                           .num_layers = 48,
                           .num_heads = 32,
                           .num_kv_heads = 4,
                           .head_dim = 128,
                           .expert_width = 768,
                           .num_experts = 128,
                           .num_experts_per_token = 8,
                           .max_context = 40960});
  }
  PREGATE_CHECK(name == "M", name);
  return Qwen3MoeConfig({.vocab_size = 32000,
                         .hidden = 4096,
                         .num_layers = 32,
                         .num_heads = 32,
                         .num_kv_heads = 8,
                         .head_dim = 128,
                         .expert_width = 14336,
                         .num_experts = 8,
                         .num_experts_per_token = 2,
                         .max_context = 32768});
}

absl::Status Synthesize(const SynthesizeOptions& options) {
  PREGATE_ASSIGN_OR_RETURN(UnfinishedFolder folder, UnfinishedFolder::Create(options.out));
  absl::Status filled = Fill(folder, options);
  if (filled.ok()) return folder.Finish();
  folder.Discard();
  return filled;
}

}  // namespace pregate
