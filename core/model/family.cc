#include "core/model/family.h"

namespace pregate {
namespace {

// Qwen3-MoE as Hugging Face's `transformers` has it.
constexpr FamilySpec kQwen3Moe = {
    .model_type = "qwen3_moe",
    .names = {.embedding = "model.embed_tokens.weight",
              .head = "lm_head.weight",
              .final_norm = "model.norm.weight",
              .input_norm = "model.layers.$0.input_layernorm.weight",
              .query = "model.layers.$0.self_attn.q_proj.weight",
              .key = "model.layers.$0.self_attn.k_proj.weight",
              .value = "model.layers.$0.self_attn.v_proj.weight",
              .output = "model.layers.$0.self_attn.o_proj.weight",
              .query_norm = "model.layers.$0.self_attn.q_norm.weight",
              .key_norm = "model.layers.$0.self_attn.k_norm.weight",
              .post_attention_norm = "model.layers.$0.post_attention_layernorm.weight",
              .gate = "model.layers.$0.mlp.gate.weight",
              .pregate = "",
              .expert_up = "model.layers.$0.mlp.experts.$1.up_proj.weight",
              .expert_down = "model.layers.$0.mlp.experts.$1.down_proj.weight",
              .expert_gate = "model.layers.$0.mlp.experts.$1.gate_proj.weight"},
    .activation = Activation::kSilu,
    .hidden_act = "silu",
    .max_experts_per_token = 128,
    .has_norm_topk_prob = true,
};

// docs/switch-pregate.md
constexpr FamilySpec kSwitchPregate = {
    .model_type = "switch_pregate",
    .names = {.embedding = "model.embed_tokens.weight",
              .head = "lm_head.weight",
              .final_norm = "model.norm.weight",
              .input_norm = "model.layers.$0.input_layernorm.weight",
              .query = "model.layers.$0.self_attn.q_proj.weight",
              .key = "model.layers.$0.self_attn.k_proj.weight",
              .value = "model.layers.$0.self_attn.v_proj.weight",
              .output = "model.layers.$0.self_attn.o_proj.weight",
              .query_norm = "",
              .key_norm = "",
              .post_attention_norm = "model.layers.$0.post_attention_layernorm.weight",
              .gate = "model.layers.$0.mlp.gate.weight",
              .pregate = "model.layers.$0.mlp.pregate.weight",
              .expert_up = "model.layers.$0.mlp.experts.$1.up_proj.weight",
              .expert_down = "model.layers.$0.mlp.experts.$1.down_proj.weight",
              .expert_gate = ""},
    .activation = Activation::kRelu,
    .hidden_act = "relu",
    .max_experts_per_token = 1,
    .has_norm_topk_prob = false,
};

constexpr const FamilySpec* kFamilies[] = {&kQwen3Moe, &kSwitchPregate};

}  // namespace

const FamilySpec* FindFamily(absl::string_view model_type) {
  for (const FamilySpec* family : kFamilies) {
    if (family->model_type == model_type) return family;
  }
  return nullptr;
}

absl::string_view FamilyNames() { return "qwen3_moe, switch_pregate"; }

}  // namespace pregate
