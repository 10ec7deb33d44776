// pregate-model as its users run it.
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>

#include "core/storage/safetensors.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/support/process.h"
#include "tests/support/temp_folder.h"

namespace pregate {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::StartsWith;

ProgramResult RunModelTool(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), BuiltProgram("pregate-model"));
  return RunProgram(arguments);
}

nlohmann::json TinyConfig(const std::string& family) {
  return {{"model_type", family},
          {"vocab_size", 300},
          {"hidden_size", 32},
          {"num_hidden_layers", 3},
          {"num_attention_heads", 4},
          {"num_key_value_heads", 2},
          {"head_dim", 16},
          {"moe_intermediate_size", 24},
          {"num_experts", 4},
          {"num_experts_per_tok", 1},
          {"max_position_embeddings", 64},
          {"tie_word_embeddings", false},
          {"eos_token_id", 2}};
}

// Makes `folder`/out and returns its tensors.
Safetensors Synthesize(const TempFolder& folder,
                       const nlohmann::json& config,
                       std::vector<std::string> flags = {}) {
  std::vector<std::string> arguments = {
      "synthesize", "--config", folder.Write("config.json", config.dump()), folder / "out"};
  arguments.insert(arguments.end(), flags.begin(), flags.end());
  const ProgramResult result = RunModelTool(arguments);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  auto tensors = Safetensors::OpenFolder(folder / "out");
  EXPECT_TRUE(tensors.ok()) << tensors.status();
  return *std::move(tensors);
}

std::vector<float> Values(const TensorView& tensor) {
  std::vector<float> values(tensor.bytes.size() / sizeof(float));
  std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
  return values;
}

TEST(PregateModel, HelpFitsAScreen) {
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"--help"}, {"inspect", "--help"}, {"synthesize", "--help"}}) {
    const ProgramResult result = RunModelTool(arguments);
    EXPECT_EQ(result.exit_code, 0);
    EXPECT_THAT(result.out, HasSubstr("Usage: pregate-model"));
    EXPECT_LE(std::count(result.out.begin(), result.out.end(), '\n'), 24) << result.out;
    EXPECT_EQ(result.err, "");
  }
  EXPECT_THAT(RunModelTool({"--version"}).out, MatchesRegex("pregate-model [0-9.]+\n"));
}

TEST(PregateModel, ExitsWith2ForAWrongCommandLine) {
  const TempFolder folder;
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{},
        {"dissect"},
        {"inspect"},
        {"inspect", "--jsn", "x"},
        {"synthesize", folder / "out"},
        {"synthesize", "--shape", "T", folder / "out"},
        {"synthesize", "--shape", "S", "--config", "x", folder / "out"},
        {"synthesize", "--shape", "S", "--seed", "-1", folder / "out"}}) {
    const ProgramResult result = RunModelTool(arguments);
    EXPECT_EQ(result.exit_code, 2) << ::testing::PrintToString(arguments);
    EXPECT_THAT(result.err, MatchesRegex("pregate-model: [^\n]*\\(see --help\\)\n"));
    EXPECT_EQ(result.out, "");
  }
  EXPECT_FALSE(std::filesystem::exists(folder / "out"));
}

TEST(PregateModel, ExitsWith1AndSaysWhy) {
  const TempFolder folder;
  const ProgramResult missing = RunModelTool({"inspect", folder / "none"});
  EXPECT_EQ(missing.exit_code, 1);
  EXPECT_EQ(missing.err,
            "pregate-model: cannot open " + (folder / "none/config.json") +
                ": No such file or directory\n");

  const auto failure = [&](const nlohmann::json& config) {
    const ProgramResult result = RunModelTool(
        {"synthesize", "--config", folder.Write("c.json", config.dump()), folder / "out"});
    EXPECT_EQ(result.exit_code, 1);
    EXPECT_THAT(result.err, StartsWith("pregate-model: " + (folder / "c.json") + ": "));
    return result.err;
  };
  nlohmann::json config = TinyConfig("switch_pregate");
  config["hidden_size"] = -4;
  EXPECT_THAT(failure(config), HasSubstr("'hidden_size' is -4, not a whole number from 1 to"));
  config = TinyConfig("switch_pregate");
  config.erase("num_experts");
  EXPECT_THAT(failure(config), HasSubstr("no 'num_experts'"));
  config = TinyConfig("switch_pregate");
  config["eos_token_id"] = {1, 300};
  EXPECT_THAT(failure(config), HasSubstr("'eos_token_id' has 300, not a token below"));
  config = TinyConfig("switch_pregate");
  config["vocab_size"] = 256;
  EXPECT_THAT(failure(config), HasSubstr("vocab_size 256 is less than the 257"));
  EXPECT_THAT(failure(TinyConfig("llama")), HasSubstr("'model_type' is \"llama\", not one of"));
  EXPECT_THAT(failure("text"), HasSubstr("not a JSON object"));

  folder.Write("file", "");
  const ProgramResult taken = RunModelTool({"synthesize", "--shape", "S", folder.path()});
  EXPECT_EQ(taken.exit_code, 1);
  EXPECT_EQ(taken.err, "pregate-model: " + folder.path() + " exists and is not empty\n");
}

TEST(PregateModel, SynthesizesAPregatedSwitch) {
  const TempFolder folder;
  const Safetensors tensors = Synthesize(folder, TinyConfig("switch_pregate"));
  const auto shape = [&](const std::string& name) {
    const TensorView* tensor = tensors.Find(name + ".weight");
    return tensor == nullptr ? std::vector<int64_t>{-1} : tensor->shape;
  };
  EXPECT_EQ(tensors.tensors().size(), 3u + 3 * (6 + 4 * 2) + 1 + 2);
  EXPECT_THAT(shape("model.embed_tokens"), ElementsAre(300, 32));
  EXPECT_THAT(shape("lm_head"), ElementsAre(300, 32));
  EXPECT_THAT(shape("model.layers.2.self_attn.q_proj"), ElementsAre(64, 32));
  EXPECT_THAT(shape("model.layers.2.self_attn.k_proj"), ElementsAre(32, 32));
  EXPECT_THAT(shape("model.layers.2.self_attn.o_proj"), ElementsAre(32, 64));
  EXPECT_THAT(shape("model.layers.0.mlp.gate"), ElementsAre(4, 32));
  EXPECT_THAT(shape("model.layers.1.mlp.gate"), ElementsAre(-1)) << "routed by layer 0's pre-gate";
  EXPECT_THAT(shape("model.layers.1.mlp.pregate"), ElementsAre(4, 32));
  EXPECT_THAT(shape("model.layers.2.mlp.pregate"), ElementsAre(-1)) << "nothing comes after it";
  EXPECT_THAT(shape("model.layers.0.mlp.experts.3.up_proj"), ElementsAre(24, 32));
  EXPECT_THAT(shape("model.layers.0.mlp.experts.3.down_proj"), ElementsAre(32, 24));
}

TEST(PregateModel, SynthesizesConventionalGatesAndTiedHeads) {
  const TempFolder folder;
  nlohmann::json config = TinyConfig("switch_pregate");
  config["use_pregate"] = false;
  config["tie_word_embeddings"] = true;
  const Safetensors tensors = Synthesize(folder, config);
  EXPECT_NE(tensors.Find("model.layers.2.mlp.gate.weight"), nullptr);
  EXPECT_EQ(tensors.Find("model.layers.0.mlp.pregate.weight"), nullptr);
  EXPECT_EQ(tensors.Find("lm_head.weight"), nullptr);
}

TEST(PregateModel, SynthesizesQwen3Moe) {
  const TempFolder folder;
  const Safetensors tensors = Synthesize(folder, TinyConfig("qwen3_moe"), {"--dtype", "bfloat16"});
  EXPECT_EQ(tensors.tensors().size(), 3u + 3 * (9 + 4 * 3));
  const TensorView* norm = tensors.Find("model.layers.1.self_attn.q_norm.weight");
  ASSERT_NE(norm, nullptr);
  EXPECT_THAT(norm->shape, ElementsAre(16));
  EXPECT_EQ(norm->dtype, TensorDtype::kBf16);
  EXPECT_NE(tensors.Find("model.layers.1.mlp.experts.0.gate_proj.weight"), nullptr);
  EXPECT_EQ(nlohmann::json::parse(ReadFile(folder / "out/config.json"))["dtype"], "bfloat16");
}

TEST(PregateModel, DrawsWeightsThatKeepActivationsAtTheirScale) {
  const TempFolder folder;
  const Safetensors tensors = Synthesize(folder, TinyConfig("switch_pregate"));
  for (const auto& [name, tensor] : tensors.tensors()) {
    double sum = 0;
    double squares = 0;
    const std::vector<float> values = Values(tensor);
    for (const float value : values) {
      EXPECT_NE(value, 0) << name;
      sum += value;
      squares += static_cast<double>(value) * value;
    }
    const auto count = static_cast<double>(values.size());
    if (tensor.shape.size() == 1) {
      EXPECT_NEAR(sum / count, 1, 0.05) << name;
      continue;
    }
    const bool down = name.find("down_proj") != std::string::npos;
    const double power = name == "model.embed_tokens.weight"
                             ? 1
                             : 1 / (static_cast<double>(tensor.shape[1]) * (down ? 0.5 : 1));
    EXPECT_NEAR(squares / count / power, 1, 6 * std::sqrt(2 / count)) << name;
    EXPECT_NEAR(sum / count / std::sqrt(power), 0, 6 / std::sqrt(count)) << name;
  }
}

TEST(PregateModel, DrawsTheSameBytesFromTheSameSeed) {
  std::vector<std::string> files;
  for (const char* seed : {"1", "1", "2"}) {
    const TempFolder folder;
    Synthesize(folder, TinyConfig("switch_pregate"), {"--seed", seed});
    files.push_back(ReadFile(folder / "out/model.safetensors"));
  }
  EXPECT_EQ(files[0], files[1]);
  EXPECT_NE(files[0], files[2]);
}

TEST(PregateModel, GivesEveryIdAToken) {
  const TempFolder folder;
  Synthesize(folder, TinyConfig("switch_pregate"));
  const auto tokenizer = nlohmann::json::parse(ReadFile(folder / "out/tokenizer.json"));
  std::vector<std::string> tokens(300);
  for (const auto& [token, id] : tokenizer["model"]["vocab"].items()) tokens.at(id) = token;
  EXPECT_EQ(tokens[2], "<|endoftext|>");
  EXPECT_EQ(tokens[0], "\u0100") << "byte 0";
  EXPECT_EQ(tokens[1 + 'A'], "A");
  EXPECT_EQ(tokens[299], "<unused_299>");
  EXPECT_EQ(std::count(tokens.begin(), tokens.end(), ""), 0);
  EXPECT_EQ(tokenizer["added_tokens"][0]["id"], 2);
  EXPECT_EQ(nlohmann::json::parse(ReadFile(folder / "out/generation_config.json"))["eos_token_id"],
            2);
}

TEST(PregateModel, InspectsWhatItSynthesized) {
  const TempFolder folder;
  Synthesize(folder, TinyConfig("switch_pregate"));
  const ProgramResult table = RunModelTool({"inspect", folder / "out"});
  EXPECT_EQ(table.exit_code, 0);
  EXPECT_THAT(table.out, HasSubstr("family               switch_pregate\n"));
  EXPECT_THAT(table.out, HasSubstr("model.layers.*.mlp.experts.*.up_proj.weight"));

  const ProgramResult result = RunModelTool({"inspect", "--json", folder / "out"});
  EXPECT_EQ(result.exit_code, 0);
  const auto json = nlohmann::json::parse(result.out);
  const uint64_t expert_parameters = 3 * 4 * 2 * 24 * 32;
  EXPECT_EQ(json["family"], "switch_pregate");
  EXPECT_EQ(json["dtype"], "F32");
  EXPECT_EQ(json["num_experts"], 4);
  EXPECT_EQ(json["experts"]["tensors"], 3 * 4 * 2);
  EXPECT_EQ(json["experts"]["parameters"], expert_parameters);
  EXPECT_EQ(json["experts"]["bytes"], 4 * expert_parameters);
  EXPECT_EQ(json["parameters"].get<uint64_t>(),
            expert_parameters + json["dense"]["parameters"].get<uint64_t>());
}

}  // namespace
}  // namespace pregate
