#include "tools/model_shape.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"

namespace pregate {
namespace {

// Far beyond any model, and small enough that no product of three overflows.
constexpr int64_t kMaxSize = 1 << 20;

absl::StatusOr<int64_t> SizeOf(const nlohmann::json& config, const char* key) {
  const auto value = config.find(key);
  if (value == config.end()) return absl::InvalidArgumentError(absl::StrCat("no '", key, "'"));
  const auto size = value->is_number_integer() ? value->get<int64_t>() : 0;
  if (size < 1 || size > kMaxSize) {
    return absl::InvalidArgumentError(absl::StrCat(
        "'", key, "' is ", value->dump(), ", not a whole number from 1 to ", kMaxSize));
  }
  return size;
}

absl::StatusOr<bool> BoolOf(const nlohmann::json& config, const char* key, bool otherwise) {
  const auto value = config.find(key);
  if (value == config.end()) return otherwise;
  if (!value->is_boolean()) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", key, "' is ", value->dump(), ", not true or false"));
  }
  return value->get<bool>();
}

absl::StatusOr<std::vector<int64_t>> EosTokenIds(const nlohmann::json& config, int64_t vocab_size) {
  std::vector<int64_t> ids;
  const auto value = config.find("eos_token_id");
  if (value == config.end() || value->is_null()) return ids;
  for (const nlohmann::json& id : value->is_array() ? *value : nlohmann::json::array({*value})) {
    const auto number = id.is_number_integer() ? id.get<int64_t>() : -1;
    if (number < 0 || number >= vocab_size) {
      return absl::InvalidArgumentError(absl::StrCat(
          "'eos_token_id' has ", id.dump(), ", not a token below the vocab_size of ", vocab_size));
    }
    ids.push_back(number);
  }
  return ids;
}

// Collects the tensors of one model.
class TensorList {
 public:
  explicit TensorList(TensorDtype dtype) : dtype_(dtype) {}

  void Norm(const std::string& name, int64_t size) { Add(name, {size}, 1, 0.05); }

  // Values of variance 1 where the inputs' second moment is `input_power`.
  void Matrix(const std::string& name, int64_t out, int64_t in, double input_power = 1) {
    Add(name, {out, in}, 0, 1 / std::sqrt(static_cast<double>(in) * input_power));
  }

  void Embedding(const std::string& name, int64_t rows, int64_t width) {
    Add(name, {rows, width}, 0, 1);
  }

  std::vector<RandomTensor> Take() { return std::move(tensors_); }

 private:
  void Add(const std::string& name, std::vector<int64_t> shape, double mean, double deviation) {
    tensors_.push_back({.spec = {.name = absl::StrCat(name, ".weight"),
                                 .dtype = dtype_,
                                 .shape = std::move(shape)},
                        .mean = mean,
                        .deviation = deviation});
  }

  const TensorDtype dtype_;
  std::vector<RandomTensor> tensors_;
};

void AddAttention(const ModelShape& shape, const std::string& layer, TensorList& list) {
  const std::string attention = absl::StrCat(layer, "self_attn.");
  const int64_t query = shape.num_heads * shape.head_dim;
  const int64_t key = shape.num_kv_heads * shape.head_dim;
  list.Norm(absl::StrCat(layer, "input_layernorm"), shape.hidden);
  list.Matrix(absl::StrCat(attention, "q_proj"), query, shape.hidden);
  list.Matrix(absl::StrCat(attention, "k_proj"), key, shape.hidden);
  list.Matrix(absl::StrCat(attention, "v_proj"), key, shape.hidden);
  list.Matrix(absl::StrCat(attention, "o_proj"), shape.hidden, query);
  if (shape.family == "qwen3_moe") {
    list.Norm(absl::StrCat(attention, "q_norm"), shape.head_dim);
    list.Norm(absl::StrCat(attention, "k_norm"), shape.head_dim);
  }
}

void AddExperts(const ModelShape& shape,
                int64_t index,
                const std::string& layer,
                TensorList& list) {
  list.Norm(absl::StrCat(layer, "post_attention_layernorm"), shape.hidden);
  const std::string mlp = absl::StrCat(layer, "mlp.");
  const bool pregated = shape.family == "switch_pregate" && shape.use_pregate;
  if (!pregated || index == 0) {
    list.Matrix(absl::StrCat(mlp, "gate"), shape.num_experts, shape.hidden);
  }
  if (pregated && index + 1 < shape.num_layers) {
    list.Matrix(absl::StrCat(mlp, "pregate"), shape.num_experts, shape.hidden);
  }
  const bool gated = shape.family == "qwen3_moe";
  for (int64_t i = 0; i < shape.num_experts; ++i) {
    const std::string expert = absl::StrCat(mlp, "experts.", i, ".");
    if (gated) {
      list.Matrix(absl::StrCat(expert, "gate_proj"), shape.expert_intermediate, shape.hidden);
    }
    list.Matrix(absl::StrCat(expert, "up_proj"), shape.expert_intermediate, shape.hidden);
    list.Matrix(absl::StrCat(expert, "down_proj"),
                shape.hidden,
                shape.expert_intermediate,
                InnerPower(gated));
  }
}

}  // namespace

absl::StatusOr<ModelShape> ParseModelShape(const nlohmann::json& config) {
  if (!config.is_object()) return absl::InvalidArgumentError("not a JSON object");
  ModelShape shape;
  const auto family = config.find("model_type");
  if (family == config.end() || (*family != "switch_pregate" && *family != "qwen3_moe")) {
    return absl::InvalidArgumentError(
        absl::StrCat("'model_type' is ",
                     family == config.end() ? "missing" : family->dump(),
                     ", not one of \"switch_pregate\", \"qwen3_moe\""));
  }
  shape.family = family->get<std::string>();
  const std::pair<const char*, int64_t*> sizes[] = {
      {"num_hidden_layers", &shape.num_layers},
      {"hidden_size", &shape.hidden},
      {"num_attention_heads", &shape.num_heads},
      {"num_key_value_heads", &shape.num_kv_heads},
      {"head_dim", &shape.head_dim},
      {"num_experts", &shape.num_experts},
      {"num_experts_per_tok", &shape.num_experts_per_token},
      {"moe_intermediate_size", &shape.expert_intermediate},
      {"max_position_embeddings", &shape.max_context},
      {"vocab_size", &shape.vocab_size}};
  for (const auto& [key, target] : sizes) {
    PREGATE_ASSIGN_OR_RETURN(*target, SizeOf(config, key));
  }
  PREGATE_ASSIGN_OR_RETURN(shape.tied, BoolOf(config, "tie_word_embeddings", false));
  PREGATE_ASSIGN_OR_RETURN(shape.use_pregate, BoolOf(config, "use_pregate", true));
  PREGATE_ASSIGN_OR_RETURN(shape.eos_token_ids, EosTokenIds(config, shape.vocab_size));
  return shape;
}

std::vector<RandomTensor> TensorsOf(const ModelShape& shape, TensorDtype dtype) {
  TensorList list(dtype);
  list.Embedding("model.embed_tokens", shape.vocab_size, shape.hidden);
  for (int64_t i = 0; i < shape.num_layers; ++i) {
    const std::string layer = absl::StrCat("model.layers.", i, ".");
    AddAttention(shape, layer, list);
    AddExperts(shape, i, layer, list);
  }
  list.Norm("model.norm", shape.hidden);
  if (!shape.tied) list.Matrix("lm_head", shape.vocab_size, shape.hidden);
  return list.Take();
}

}  // namespace pregate
