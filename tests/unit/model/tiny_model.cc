#include "tests/unit/model/tiny_model.h"

#include <cstring>
#include <fstream>
#include <random>

#include "absl/strings/str_cat.h"
#include "core/base/check.h"
#include "core/storage/safetensors.h"

namespace pregate {
namespace {

uint16_t ToBfloat16Bits(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

float RoundedToBfloat16(float x) {
  const uint32_t bits = uint32_t{ToBfloat16Bits(x)} << 16;
  std::memcpy(&x, &bits, sizeof(x));
  return x;
}

class Maker {
 public:
  explicit Maker(TinyModel& model) : model_(model) {}

  // A matrix whose products keep their inputs' size.
  void Matrix(const std::string& name, int64_t out, int64_t in) {
    Add(name, {out, in}, 0, 1.0f / std::sqrt(static_cast<float>(in)));
  }
  // So spread that experts are chosen clearly.
  void Gate(const std::string& name, int64_t experts, int64_t hidden) {
    Add(name, {experts, hidden}, 0, 3.0f / std::sqrt(static_cast<float>(hidden)));
  }
  void Norm(const std::string& name, int64_t width) { Add(name, {width}, 1, 0.2f); }

 private:
  void Add(const std::string& name, std::vector<int64_t> shape, float mean, float deviation) {
    int64_t count = 1;
    for (const int64_t extent : shape) count *= extent;
    std::normal_distribution<float> normal(mean, deviation);
    TinyTensor tensor{.shape = std::move(shape), .numbers = {}};
    for (int64_t i = 0; i < count; ++i) {
      const float number = normal(engine_);
      tensor.numbers.push_back(model_.dtype == Dtype::kBfloat16 ? RoundedToBfloat16(number)
                                                                : number);
    }
    model_.tensors[name] = std::move(tensor);
  }

  TinyModel& model_;
  std::mt19937 engine_{3};  // the same weights every time
};

TinyModel Make(nlohmann::json config, Dtype dtype) {
  TinyModel model{.config = std::move(config), .dtype = dtype, .tensors = {}};
  model.config["dtype"] = std::string(DtypeName(dtype));
  const auto size = [&](const char* key) { return model.config.at(key).get<int64_t>(); };
  const bool is_switch = model.config.at("model_type") == "switch_pregate";
  const bool use_pregate = is_switch && model.config.at("use_pregate").get<bool>();
  const int64_t hidden = size("hidden_size");
  const int64_t queries = size("num_attention_heads") * size("head_dim");
  const int64_t keys = size("num_key_value_heads") * size("head_dim");
  const int64_t width = size("moe_intermediate_size");
  const int64_t layers = size("num_hidden_layers");
  const int64_t experts = size("num_experts");

  Maker maker(model);
  maker.Matrix("model.embed_tokens.weight", size("vocab_size"), hidden);
  maker.Norm("model.norm.weight", hidden);
  if (!model.config.at("tie_word_embeddings").get<bool>()) {
    maker.Matrix("lm_head.weight", size("vocab_size"), hidden);
  }
  for (int64_t layer = 0; layer < layers; ++layer) {
    const std::string prefix = absl::StrCat("model.layers.", layer, ".");
    maker.Norm(prefix + "input_layernorm.weight", hidden);
    maker.Norm(prefix + "post_attention_layernorm.weight", hidden);
    maker.Matrix(prefix + "self_attn.q_proj.weight", queries, hidden);
    maker.Matrix(prefix + "self_attn.k_proj.weight", keys, hidden);
    maker.Matrix(prefix + "self_attn.v_proj.weight", keys, hidden);
    maker.Matrix(prefix + "self_attn.o_proj.weight", hidden, queries);
    if (!is_switch) {
      maker.Norm(prefix + "self_attn.q_norm.weight", size("head_dim"));
      maker.Norm(prefix + "self_attn.k_norm.weight", size("head_dim"));
    }
    if (layer == 0 || !use_pregate) maker.Gate(prefix + "mlp.gate.weight", experts, hidden);
    if (use_pregate && layer + 1 < layers) {
      maker.Gate(prefix + "mlp.pregate.weight", experts, hidden);
    }
    for (int64_t expert = 0; expert < experts; ++expert) {
      const std::string name = absl::StrCat(prefix, "mlp.experts.", expert, ".");
      maker.Matrix(name + "up_proj.weight", width, hidden);
      if (!is_switch) maker.Matrix(name + "gate_proj.weight", width, hidden);
      maker.Matrix(name + "down_proj.weight", hidden, width);
    }
  }
  return model;
}

}  // namespace

TinyModel MakeTinyQwen3Moe(Dtype dtype) {
  return Make({{"model_type", "qwen3_moe"},
               {"vocab_size", 96},
               {"hidden_size", 48},
               {"num_hidden_layers", 3},
               {"num_attention_heads", 4},
               {"num_key_value_heads", 2},
               {"head_dim", 20},
               {"moe_intermediate_size", 40},
               {"num_experts", 8},
               {"num_experts_per_tok", 2},
               {"norm_topk_prob", true},
               {"max_position_embeddings", 128},
               {"rope_theta", 1000.0},
               {"rms_norm_eps", 1e-6},
               {"hidden_act", "silu"},
               {"tie_word_embeddings", false},
               {"eos_token_id", {0, 7}}},
              dtype);
}

TinyModel MakeTinySwitch(Dtype dtype, bool use_pregate) {
  return Make({{"model_type", "switch_pregate"},
               {"vocab_size", 96},
               {"hidden_size", 64},
               {"num_hidden_layers", 4},
               {"num_attention_heads", 2},
               {"num_key_value_heads", 2},
               {"head_dim", 32},
               {"moe_intermediate_size", 80},
               {"num_experts", 4},
               {"num_experts_per_tok", 1},
               {"use_pregate", use_pregate},
               {"max_position_embeddings", 128},
               {"rope_theta", 10000.0},
               {"rms_norm_eps", 1e-6},
               {"hidden_act", "relu"},
               {"tie_word_embeddings", true},
               {"bos_token_id", nullptr},
               {"eos_token_id", 0}},
              dtype);
}

void TinyModel::Write(const std::string& folder) const {
  std::ofstream(folder + "/config.json") << config.dump(2);
  std::vector<TensorSpec> specs;
  for (const auto& [name, tensor] : tensors) {
    specs.push_back({.name = name,
                     .dtype = dtype == Dtype::kBfloat16 ? TensorDtype::kBf16 : TensorDtype::kF32,
                     .shape = tensor.shape});
  }
  auto writer = SafetensorsWriter::Create(folder + "/model.safetensors", specs, {});
  PREGATE_CHECK(writer.ok(), writer.status().ToString());
  for (const auto& [name, tensor] : tensors) {
    absl::Status status;
    if (dtype == Dtype::kBfloat16) {
      std::vector<uint16_t> bits;
      for (const float number : tensor.numbers) bits.push_back(ToBfloat16Bits(number));
      status = (*writer)->Append(
          {reinterpret_cast<const std::byte*>(bits.data()), bits.size() * sizeof(uint16_t)});
    } else {
      status = (*writer)->Append({reinterpret_cast<const std::byte*>(tensor.numbers.data()),
                                  tensor.numbers.size() * sizeof(float)});
    }
    PREGATE_CHECK(status.ok(), status.ToString());
  }
  PREGATE_CHECK((*writer)->Finish().ok());
}

}  // namespace pregate
