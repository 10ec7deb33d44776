#include "core/model/model_config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/kernel/attention.h"
#include "core/model/json_fields.h"

namespace pregate {
namespace {

using nlohmann::json;

constexpr uint32_t kMaxVocab = 1 << 22;
constexpr uint32_t kMaxWidth = 1 << 17;  // of hidden states and experts
constexpr uint32_t kMaxLayers = 1024;
constexpr uint32_t kMaxHeads = 1024;
constexpr uint32_t kMaxExperts = 4096;
constexpr uint32_t kMaxPositions = 1 << 24;
constexpr double kMaxParameters = 1e13;

// Newer `transformers` write {"rope_parameters": {"rope_theta": …}}, older ones "rope_theta".
double ReadRopeTheta(JsonFields& fields, const std::string& path) {
  constexpr double kMin = 1;
  constexpr double kMax = 1e12;
  const auto is_plain = [](const json& rope) {
    return rope.is_object() && rope.value("rope_type", json("default")) == "default" &&
           rope.value("type", json("default")) == "default" && rope.value("factor", json(1)) == 1;
  };
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const json* rope = fields.Find(key);
    if (rope != nullptr && !is_plain(*rope)) fields.Refuse(key, "rope_type default, no scaling");
  }
  const json* parameters = fields.Find("rope_parameters");
  if (parameters == nullptr || !parameters->is_object() || !parameters->contains("rope_theta")) {
    return fields.Number("rope_theta", kMin, kMax, 10000);
  }
  JsonFields rope(*parameters, path);
  const double theta = rope.Number("rope_theta", kMin, kMax);
  if (!rope.status().ok()) fields.Refuse("rope_parameters", "a rope_theta from 1 to 1e+12");
  return theta;
}

std::optional<Dtype> ReadDtype(JsonFields& fields) {
  const char* key = fields.Find("dtype") != nullptr ? "dtype" : "torch_dtype";
  const std::string name = fields.Text(key, "");
  if (name == "float32") return Dtype::kFloat32;
  if (name == "bfloat16" || name == "float16") return Dtype::kBfloat16;
  if (!name.empty()) fields.Refuse(key, "float32, bfloat16, float16");
  return std::nullopt;
}

// One id or a list.
std::vector<uint32_t> ReadTokenIds(JsonFields& fields, const char* key, uint32_t vocab_size) {
  const json* value = fields.Find(key);
  if (value == nullptr) return {};
  std::vector<uint32_t> ids;
  for (const json& id : value->is_array() ? *value : json::array({*value})) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() >= vocab_size) {
      fields.Refuse(key, absl::StrCat("token ids from 0 to ", vocab_size - 1));
      return {};
    }
    ids.push_back(id.get<uint32_t>());
  }
  return ids;
}

// Refuses what would change the result and is not computed here.
void RefuseUnsupported(JsonFields& fields) {
  if (fields.Bool("attention_bias", false)) fields.Refuse("attention_bias", "false");
  if (fields.Bool("use_sliding_window", false)) fields.Refuse("use_sliding_window", "false");
  if (fields.Count("decoder_sparse_step", 0, kMaxLayers, 1) != 1) {
    fields.Refuse("decoder_sparse_step", "1");
  }
  if (fields.Number("partial_rotary_factor", 0, 1, 1) != 1) {
    fields.Refuse("partial_rotary_factor", "1");
  }
  for (const char* key : {"shared_expert_intermediate_size", "n_shared_experts"}) {
    if (fields.Count(key, 0, kMaxWidth, 0) != 0) fields.Refuse(key, "0 or none");
  }
  if (fields.Find("quantization_config") != nullptr) fields.Refuse("quantization_config", "none");
  const json* dense_layers = fields.Find("mlp_only_layers");
  if (dense_layers != nullptr && *dense_layers != json::array()) {
    fields.Refuse("mlp_only_layers", "an empty list");
  }
  const json* layer_types = fields.Find("layer_types");
  if (layer_types != nullptr &&
      !(layer_types->is_array() &&
        std::all_of(layer_types->begin(), layer_types->end(), [](const json& type) {
          return type == "full_attention";
        }))) {
    fields.Refuse("layer_types", "a list of \"full_attention\"");
  }
}

void ReadShape(JsonFields& fields, ModelConfig& config) {
  config.vocab_size = fields.Count("vocab_size", 1, kMaxVocab);
  config.hidden_size = fields.Count("hidden_size", 1, kMaxWidth);
  config.num_layers = fields.Count("num_hidden_layers", 1, kMaxLayers);
  config.num_heads = fields.Count("num_attention_heads", 1, kMaxHeads);
  config.num_kv_heads = fields.Count("num_key_value_heads", 1, config.num_heads, config.num_heads);
  config.head_dim = fields.Count("head_dim",
                                 2,
                                 static_cast<uint32_t>(kMaxHeadDim),
                                 config.hidden_size / std::max(1u, config.num_heads));
  config.num_experts = fields.Count("num_experts", 1, kMaxExperts);
  config.num_experts_per_token = fields.Count(
      "num_experts_per_tok", 1, std::min(config.num_experts, config.family->max_experts_per_token));
  config.expert_width = fields.Count("moe_intermediate_size", 1, kMaxWidth);
  config.max_positions = fields.Count("max_position_embeddings", 1, kMaxPositions);
  config.rms_norm_eps = static_cast<float>(fields.Number("rms_norm_eps", 0, 1, 1e-6));
  config.tie_word_embeddings = fields.Bool("tie_word_embeddings", false);
}

// What is wrong only of several keys together.
void CheckShape(JsonFields& fields, const ModelConfig& config) {
  if (config.num_heads % config.num_kv_heads != 0) {
    fields.Refuse("num_key_value_heads",
                  absl::StrCat("a divisor of num_attention_heads, ", config.num_heads));
  }
  if (config.head_dim % 2 != 0 || config.head_dim < 2 || config.head_dim > kMaxHeadDim) {
    fields.Refuse("head_dim", absl::StrCat("an even number from 2 to ", kMaxHeadDim));
  }
  const double experts = static_cast<double>(config.num_layers) * config.num_experts *
                         config.expert_width * config.hidden_size * 2;
  if (experts > kMaxParameters) {
    fields.Refuse("num_experts", "experts with at most 1e13 parameters together");
  }
}

absl::Status ReadGenerationConfig(const std::string& folder, ModelConfig& config) {
  const std::string path = folder + "/generation_config.json";
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return absl::OkStatus();
  PREGATE_ASSIGN_OR_RETURN(const json object, ReadJsonObject(path));
  JsonFields fields(object, path);
  Sampling& sampling = config.default_sampling;
  sampling.temperature = static_cast<float>(fields.Number("temperature", 0, 100, 1));
  sampling.top_k = fields.Count("top_k", 0, UINT32_MAX, 0);
  sampling.top_p = static_cast<float>(fields.Number("top_p", 1e-6, 1, 1));
  if (fields.Find("eos_token_id") != nullptr) {
    config.eos_token_ids = ReadTokenIds(fields, "eos_token_id", config.vocab_size);
  }
  return fields.status();
}

}  // namespace

absl::StatusOr<ModelConfig> ReadModelConfig(const std::string& folder) {
  const std::string path = folder + "/config.json";
  PREGATE_ASSIGN_OR_RETURN(const json object, ReadJsonObject(path));
  JsonFields fields(object, path);
  ModelConfig config;
  const std::string model_type = fields.Text("model_type");
  PREGATE_RETURN_IF_ERROR(fields.status());
  config.family = FindFamily(model_type);
  if (config.family == nullptr) {
    fields.Refuse("model_type", FamilyNames());
    return fields.status();
  }

  ReadShape(fields, config);
  CheckShape(fields, config);
  config.rope_theta = ReadRopeTheta(fields, path);
  if (fields.Text("hidden_act", std::string(config.family->hidden_act)) !=
      config.family->hidden_act) {
    fields.Refuse("hidden_act", config.family->hidden_act);
  }
  if (config.family->has_norm_topk_prob) {
    config.renormalize_weights = fields.Bool("norm_topk_prob", false);
  }
  if (config.family->has_pregate()) config.use_pregate = fields.Bool("use_pregate", true);
  config.dtype = ReadDtype(fields);
  config.eos_token_ids = ReadTokenIds(fields, "eos_token_id", config.vocab_size);
  RefuseUnsupported(fields);
  PREGATE_RETURN_IF_ERROR(fields.status());
  PREGATE_RETURN_IF_ERROR(ReadGenerationConfig(folder, config));
  return config;
}

}  // namespace pregate
