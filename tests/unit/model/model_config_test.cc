#include "core/model/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/temp_folder.h"
#include "tests/unit/model/tiny_model.h"

namespace pregate {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;

class ModelConfigTest : public testing::Test {
 protected:
  absl::StatusOr<ModelConfig> Read(const json& config) {
    folder_.Write("config.json", config.dump());
    return ReadModelConfig(folder_.path());
  }
  // The tiny model's configuration with one key changed.
  absl::Status ReadWith(const char* key, const json& value) {
    json config = MakeTinyQwen3Moe().config;
    config[key] = value;
    return Read(config).status();
  }

  TempFolder folder_;
};

TEST_F(ModelConfigTest, ReadsQwen3Moe) {
  const absl::StatusOr<ModelConfig> config = Read(MakeTinyQwen3Moe().config);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->family->model_type, "qwen3_moe");
  EXPECT_EQ(config->vocab_size, 96u);
  EXPECT_EQ(config->hidden_size, 48u);
  EXPECT_EQ(config->num_layers, 3u);
  EXPECT_EQ(config->num_heads, 4u);
  EXPECT_EQ(config->num_kv_heads, 2u);
  EXPECT_EQ(config->head_dim, 20u);
  EXPECT_EQ(config->num_experts, 8u);
  EXPECT_EQ(config->num_experts_per_token, 2u);
  EXPECT_EQ(config->expert_width, 40u);
  EXPECT_EQ(config->max_positions, 128u);
  EXPECT_EQ(config->rope_theta, 1000);
  EXPECT_FALSE(config->tie_word_embeddings);
  EXPECT_TRUE(config->renormalize_weights);
  EXPECT_EQ(config->dtype, Dtype::kFloat32);
  EXPECT_EQ(config->eos_token_ids, (std::vector<uint32_t>{0, 7}));
  for (uint32_t layer = 0; layer < 3; ++layer) {
    EXPECT_TRUE(config->HasGate(layer));
    EXPECT_FALSE(config->HasPregate(layer));
  }
}

TEST_F(ModelConfigTest, ReadsSwitchPregate) {
  json object = MakeTinySwitch().config;
  object.erase("use_pregate");  // true is the default
  const absl::StatusOr<ModelConfig> config = Read(object);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_FALSE(config->renormalize_weights);
  EXPECT_EQ(config->eos_token_ids, (std::vector<uint32_t>{0}));
  EXPECT_TRUE(config->HasGate(0));
  EXPECT_FALSE(config->HasGate(1));
  EXPECT_TRUE(config->HasPregate(2));
  EXPECT_FALSE(config->HasPregate(3));

  const absl::StatusOr<ModelConfig> conventional =
      Read(MakeTinySwitch(Dtype::kFloat32, false).config);
  ASSERT_TRUE(conventional.ok());
  EXPECT_TRUE(conventional->HasGate(3));
  EXPECT_FALSE(conventional->HasPregate(0));
}

TEST_F(ModelConfigTest, AcceptsBothSpellings) {
  json config = MakeTinyQwen3Moe().config;
  config.erase("rope_theta");
  config.erase("dtype");
  config["rope_parameters"] = {{"rope_theta", 5e6}, {"rope_type", "default"}};
  config["torch_dtype"] = "bfloat16";
  absl::StatusOr<ModelConfig> read = Read(config);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->rope_theta, 5e6);
  EXPECT_EQ(read->dtype, Dtype::kBfloat16);

  config["rope_scaling"] = nullptr;
  config["sliding_window"] = 4096;  // without effect while use_sliding_window is false
  config["mlp_only_layers"] = json::array();
  config["layer_types"] = {"full_attention", "full_attention", "full_attention"};
  config.erase("torch_dtype");
  read = Read(config);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->dtype, std::nullopt);
}

TEST_F(ModelConfigTest, GenerationConfigGivesDefaults) {
  folder_.Write("generation_config.json",
                R"({"temperature": 0.6, "top_k": 20, "top_p": 0.95, "eos_token_id": [5, 6]})");
  const absl::StatusOr<ModelConfig> config = Read(MakeTinyQwen3Moe().config);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->default_sampling.temperature, 0.6f);
  EXPECT_EQ(config->default_sampling.top_k, 20u);
  EXPECT_EQ(config->default_sampling.top_p, 0.95f);
  EXPECT_EQ(config->eos_token_ids, (std::vector<uint32_t>{5, 6}));

  folder_.Write("generation_config.json", R"({"top_p": 2})");
  EXPECT_THAT(Read(MakeTinyQwen3Moe().config).status().message(),
              AllOf(HasSubstr("generation_config.json: top_p is 2; allowed: a number from")));
}

TEST_F(ModelConfigTest, NamesFileKeyValueAndWhatIsAllowed) {
  const struct {
    const char* key;
    json value;
    const char* message;
  } cases[] = {
      {"model_type", "llama", "model_type is \"llama\"; allowed: qwen3_moe, switch_pregate"},
      {"hidden_size", -3, "hidden_size is -3; allowed: a whole number from 1 to 131072"},
      {"hidden_size", 0, "hidden_size is 0;"},
      {"hidden_size", 1.5, "hidden_size is 1.5;"},
      {"hidden_size", "48", "hidden_size is \"48\";"},
      {"hidden_size", nullptr, "hidden_size is missing;"},
      {"num_hidden_layers", 1000000, "allowed: a whole number from 1 to 1024"},
      {"num_key_value_heads", 3, "num_key_value_heads is 3; allowed: a divisor of"},
      {"num_key_value_heads", 8, "num_key_value_heads is 8; allowed: a whole number from 1 to 4"},
      {"head_dim", 21, "head_dim is 21; allowed: an even number"},
      {"head_dim", 1024, "head_dim is 1024;"},
      {"num_experts_per_tok", 9, "num_experts_per_tok is 9; allowed: a whole number from 1 to 8"},
      {"rms_norm_eps", -1, "rms_norm_eps is -1"},
      {"rope_theta", 0, "rope_theta is 0"},
      {"norm_topk_prob", 1, "norm_topk_prob is 1; allowed: true or false"},
      {"hidden_act", "gelu", "hidden_act is \"gelu\"; allowed: silu"},
      {"dtype", "int8", "dtype is \"int8\"; allowed: float32"},
      {"eos_token_id", 96, "eos_token_id is 96; allowed: token ids from 0 to 95"},
      {"eos_token_id", {1, -1}, "eos_token_id is [1,-1]"},
      {"rope_scaling", {{"rope_type", "yarn"}, {"factor", 4}}, "rope_scaling is {"},
      {"rope_parameters", {{"rope_theta", 1e4}, {"rope_type", "llama3"}}, "rope_parameters is {"},
      {"use_sliding_window", true, "use_sliding_window is true; allowed: false"},
      {"attention_bias", true, "attention_bias is true; allowed: false"},
      {"decoder_sparse_step", 2, "decoder_sparse_step is 2; allowed: 1"},
      {"mlp_only_layers", {0}, "mlp_only_layers is [0]; allowed: an empty list"},
      {"layer_types", {"sliding_attention"}, "layer_types is"},
      {"shared_expert_intermediate_size", 64, "shared_expert_intermediate_size is 64"},
      {"quantization_config", {{"bits", 4}}, "quantization_config is {"},
  };
  for (const auto& [key, value, message] : cases) {
    const absl::Status status = ReadWith(key, value);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << key;
    EXPECT_THAT(status.message(), AllOf(HasSubstr(folder_ / "config.json"), HasSubstr(message)));
  }
}

TEST_F(ModelConfigTest, RefusesAbsurdSizesTogether) {
  json config = MakeTinyQwen3Moe().config;
  config["num_hidden_layers"] = 1024;
  config["num_experts"] = 4096;
  config["moe_intermediate_size"] = 131072;
  config["hidden_size"] = 131072;
  EXPECT_THAT(Read(config).status().message(), HasSubstr("parameters together"));
}

TEST_F(ModelConfigTest, SwitchTakesOneExpert) {
  json config = MakeTinySwitch().config;
  config["num_experts_per_tok"] = 2;
  EXPECT_THAT(Read(config).status().message(),
              HasSubstr("num_experts_per_tok is 2; allowed: a whole number from 1 to 1"));
}

TEST_F(ModelConfigTest, SaysWhatIsWrongWithTheFile) {
  EXPECT_EQ(ReadModelConfig(folder_.path()).status().code(), absl::StatusCode::kNotFound);
  folder_.Write("config.json", "{\"vocab_size\": ");
  EXPECT_THAT(ReadModelConfig(folder_.path()).status().message(), HasSubstr("not JSON"));
  folder_.Write("config.json", "[1]");
  EXPECT_THAT(ReadModelConfig(folder_.path()).status().message(), HasSubstr("not a JSON object"));
  folder_.Write("config.json", "{}");
  EXPECT_THAT(ReadModelConfig(folder_.path()).status().message(),
              HasSubstr("model_type is missing"));
}

}  // namespace
}  // namespace pregate
