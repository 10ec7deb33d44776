// The shipped models against what generate.py recorded of their references: Hugging Face
// transformers and the training code.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <numeric>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/model/torch_runner.h"
#include "core/storage/safetensors.h"
#include "nlohmann/json.hpp"

namespace pregate {
namespace {

constexpr double kTolerance = 1e-4;  // ‖difference‖ / ‖reference‖
constexpr uint32_t kBlockSize = 16;
constexpr uint32_t kBlocksPerCase = 16;  // 256 tokens

struct GoldenCase {
  std::string text;
  std::vector<uint32_t> input_ids;
  std::vector<std::vector<std::vector<uint32_t>>> router_choices;  // [token][layer][k]
  std::vector<uint32_t> greedy_ids;
  std::vector<uint32_t> logits_positions;
  std::vector<float> logits;  // [positions, vocab]
};

class GoldenTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const std::string folder = absl::StrCat(PREGATE_SOURCE_DIR "/tests/golden/", GetParam());
    ReadCases(folder);
    EngineOptions options;
    options.model = absl::StrCat(PREGATE_SOURCE_DIR "/models/", GetParam());
    options.dtype = "float32";
    options.threads = 1;
    options.kv_block_size = kBlockSize;
    options.max_running = static_cast<uint32_t>(cases_.size());
    static const Logger logger(LogLevel::kError);
    absl::StatusOr<std::unique_ptr<TorchRunner>> runner = TorchRunner::Load(options, logger);
    ASSERT_TRUE(runner.ok()) << runner.status();
    runner_ = *std::move(runner);
    for (uint32_t i = 0; i < cases_.size(); ++i) {
      blocks_.emplace_back(kBlocksPerCase);
      std::iota(blocks_.back().begin(), blocks_.back().end(), i * kBlocksPerCase);
    }
  }

  void ReadCases(const std::string& folder) {
    std::ifstream file(folder + "/cases.json");
    const nlohmann::json golden = nlohmann::json::parse(file);
    const absl::StatusOr<Safetensors> tensors = Safetensors::Open(folder + "/logits.safetensors");
    ASSERT_TRUE(tensors.ok()) << tensors.status();
    for (const nlohmann::json& object : golden.at("cases")) {
      GoldenCase golden_case;
      object.at("text").get_to(golden_case.text);
      object.at("input_ids").get_to(golden_case.input_ids);
      object.at("router_choices").get_to(golden_case.router_choices);
      object.at("greedy_ids").get_to(golden_case.greedy_ids);
      object.at("logits_positions").get_to(golden_case.logits_positions);
      const TensorView* logits = tensors->Find(absl::StrCat("case_", cases_.size()));
      ASSERT_NE(logits, nullptr);
      ASSERT_EQ(logits->dtype, TensorDtype::kF32);
      golden_case.logits.resize(logits->bytes.size() / sizeof(float));
      std::memcpy(golden_case.logits.data(), logits->bytes.data(), logits->bytes.size());
      cases_.push_back(std::move(golden_case));
    }
    ASSERT_EQ(cases_.size(), 10u);
  }

  std::vector<GoldenCase> cases_;
  std::vector<std::vector<uint32_t>> blocks_;  // of each case's sequence
  std::unique_ptr<TorchRunner> runner_;
};
INSTANTIATE_TEST_SUITE_P(Models,
                         GoldenTest,
                         testing::Values("switch-mini", "qwen3-moe-mini"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::erase_if(name, [](char c) { return c == '-'; });
                           return name;
                         });

TEST_P(GoldenTest, LogitsAndRouterChoices) {
  for (size_t i = 0; i < cases_.size(); ++i) {
    const GoldenCase& expected = cases_[i];
    SCOPED_TRACE(expected.text);
    const TokenRun run = {
        .token_ids = expected.input_ids, .first_position = 0, .blocks = blocks_[i]};
    Routing routing;
    const absl::StatusOr<absl::Span<const float>> logits =
        runner_->Forward({.runs = {&run, 1}, .logit_tokens = expected.logits_positions}, &routing);
    ASSERT_TRUE(logits.ok()) << logits.status();
    ASSERT_EQ(logits->size(), expected.logits.size());
    double difference = 0;
    double norm = 0;
    for (size_t j = 0; j < logits->size(); ++j) {
      difference += std::pow(double{(*logits)[j]} - expected.logits[j], 2);
      norm += std::pow(double{expected.logits[j]}, 2);
    }
    EXPECT_LE(std::sqrt(difference / norm), kTolerance);

    ASSERT_EQ(expected.router_choices.size(), expected.input_ids.size());
    for (uint32_t token = 0; token < routing.num_tokens; ++token) {
      ASSERT_EQ(expected.router_choices[token].size(), routing.num_layers);
      for (uint32_t layer = 0; layer < routing.num_layers; ++layer) {
        EXPECT_THAT(routing.ExpertsOf(layer, token),
                    testing::ElementsAreArray(expected.router_choices[token][layer]))
            << "token " << token << ", layer " << layer;
      }
    }
  }
}

// All texts side by side, as the engine would run them.
TEST_P(GoldenTest, GreedyTokens) {
  const Sampling greedy{.temperature = 0};
  std::vector<std::vector<uint32_t>> generated(cases_.size());
  const size_t num_tokens = cases_.front().greedy_ids.size();
  ASSERT_EQ(num_tokens, 64u);
  while (generated.front().size() < num_tokens) {
    const size_t done = generated.front().size();
    StepPlan plan;
    for (size_t i = 0; i < cases_.size(); ++i) {
      const auto prompt = static_cast<uint32_t>(cases_[i].input_ids.size());
      SequenceStep step = {.sequence_id = i,
                           .token_ids = cases_[i].input_ids,
                           .first_position = 0,
                           .blocks = blocks_[i],
                           .is_prompt = done == 0,
                           .sampling = &greedy};
      if (done > 0) {
        step.token_ids = absl::MakeConstSpan(&generated[i].back(), 1);
        step.first_position = prompt + static_cast<uint32_t>(done) - 1;
      }
      plan.sequences.push_back(step);
    }
    const absl::StatusOr<StepResult> result = runner_->Run(plan);
    ASSERT_TRUE(result.ok()) << result.status();
    for (size_t i = 0; i < cases_.size(); ++i) {
      ASSERT_TRUE(result->sequences[i].token.has_value()) << result->sequences[i].status;
      generated[i].push_back(result->sequences[i].token->token_id);
    }
  }
  for (size_t i = 0; i < cases_.size(); ++i) {
    EXPECT_EQ(generated[i], cases_[i].greedy_ids) << cases_[i].text;
  }
}

}  // namespace
}  // namespace pregate
