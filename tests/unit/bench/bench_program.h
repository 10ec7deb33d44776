// pregate-bench and a tiny random model to run it on.
#pragma once

#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/support/process.h"
#include "tests/support/temp_folder.h"

namespace pregate {

inline ProgramResult RunBench(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), BuiltProgram("pregate-bench"));
  return RunProgram(arguments);
}

// Two layers of four experts, top-1, pre-gated; a context of 64 tokens.
class TinyModelTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new TempFolder;
    const nlohmann::json config = {{"model_type", "switch_pregate"},
                                   {"vocab_size", 300},
                                   {"hidden_size", 32},
                                   {"num_hidden_layers", 2},
                                   {"num_attention_heads", 2},
                                   {"num_key_value_heads", 2},
                                   {"head_dim", 16},
                                   {"moe_intermediate_size", 48},
                                   {"num_experts", 4},
                                   {"num_experts_per_tok", 1},
                                   {"hidden_act", "relu"},
                                   {"max_position_embeddings", 64},
                                   {"rope_theta", 10000.0},
                                   {"rms_norm_eps", 1e-6},
                                   {"tie_word_embeddings", false},
                                   {"eos_token_id", 0}};
    const ProgramResult result = RunProgram({BuiltProgram("pregate-model"),
                                             "synthesize",
                                             "--config",
                                             folder_->Write("config.json", config.dump()),
                                             Model()});
    ASSERT_EQ(result.exit_code, 0) << result.err;
  }
  static void TearDownTestSuite() {
    delete folder_;
    folder_ = nullptr;
  }

  static std::string Model() { return *folder_ / "tiny"; }

  inline static TempFolder* folder_ = nullptr;
};

}  // namespace pregate
