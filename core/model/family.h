// What tells model families apart, as data. A family that needs only other names adds a row in
// family.cc; one that needs a new mechanism adds a field here and the code that reads it.
#pragma once

#include <cstdint>

#include "absl/strings/string_view.h"
#include "core/kernel/expert_mlp.h"

namespace pregate {

// Names of a family's tensors in absl::Substitute's form: $0 is the layer, $1 the expert.
struct TensorNames {
  absl::string_view embedding;  // [vocab, hidden]
  absl::string_view head;       // [vocab, hidden], unless tied to the embedding
  absl::string_view final_norm;
  absl::string_view input_norm;
  absl::string_view query, key, value, output;
  absl::string_view query_norm, key_norm;  // "" without
  absl::string_view post_attention_norm;
  absl::string_view gate;     // [experts, hidden]: routes its own block
  absl::string_view pregate;  // [experts, hidden]: routes the next block; "" without
  absl::string_view expert_up, expert_down;
  absl::string_view expert_gate;  // "" without: the expert is not a gated network
};

struct FamilySpec {
  absl::string_view model_type;  // of config.json
  TensorNames names;
  Activation activation;
  absl::string_view hidden_act;  // the activation as config.json must spell it
  uint32_t max_experts_per_token;
  bool has_norm_topk_prob;  // the key of that name says whether chosen weights are renormalized;
                            // without it they are not

  bool is_gated() const { return !names.expert_gate.empty(); }
  bool has_qk_norm() const { return !names.query_norm.empty(); }
  bool has_pregate() const { return !names.pregate.empty(); }
};

// Null when no family has that model_type.
const FamilySpec* FindFamily(absl::string_view model_type);

// "qwen3_moe, switch_pregate", for messages.
absl::string_view FamilyNames();

}  // namespace pregate
