// Loading and its errors, and steps as the engine runs them.
#include "core/model/torch_runner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "core/device/cuda_backend.h"
#include "core/engine/scheduler.h"
#include "core/kernel/sampling.h"
#include "core/model/load_model.h"
#include "tests/support/recorded_stats.h"
#include "tests/support/temp_folder.h"
#include "tests/unit/model/tiny_model.h"

namespace pregate {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

class TorchRunnerTest : public testing::Test {
 protected:
  TorchRunnerTest()
      : logger_(
            LogLevel::kInfo, LogFormat::kText, [this](const std::string& line) { log_ += line; }) {
    options_.model = folder_.path();
    options_.threads = 1;
    options_.max_batch_tokens = 128;
    options_.max_running = 4;
    options_.kv_block_size = 8;
  }

  absl::StatusOr<std::unique_ptr<TorchRunner>> Load(const TinyModel& model) {
    model.Write(folder_.path());
    return TorchRunner::Load(options_, logger_);
  }
  absl::Status LoadStatus(const TinyModel& model) { return Load(model).status(); }

  static SequenceStep Step(absl::Span<const uint32_t> ids,
                           absl::Span<const uint32_t> blocks,
                           const Sampling* sampling) {
    return {.sequence_id = 1,
            .token_ids = ids,
            .first_position = 0,
            .blocks = blocks,
            .is_prompt = true,
            .sampling = sampling};
  }

  TempFolder folder_;
  EngineOptions options_;
  std::string log_;
  Logger logger_;
};

TEST_F(TorchRunnerTest, DescribesTheModel) {
  options_.served_model_name = "tiny";
  const TinyModel model = MakeTinyQwen3Moe(Dtype::kBfloat16);
  model.Write(folder_.path());
  const absl::StatusOr<LoadedModel> loaded = LoadTorchModel(options_, logger_);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const ModelDescription& description = loaded->description;
  EXPECT_EQ(description.name, "tiny");
  EXPECT_EQ(description.family, "qwen3_moe");
  EXPECT_EQ(description.dtype, "bfloat16");
  EXPECT_EQ(description.vocab_size, 96u);
  EXPECT_EQ(description.max_context, 128u);
  EXPECT_EQ(description.num_layers, 3u);
  EXPECT_EQ(description.num_experts, 8u);
  EXPECT_EQ(description.num_experts_per_token, 2u);
  EXPECT_THAT(description.eos_token_ids, ElementsAre(0, 7));
  uint64_t parameters = 0;
  for (const auto& [name, tensor] : model.tensors) parameters += tensor.numbers.size();
  EXPECT_EQ(description.num_parameters, parameters);

  const ModelRunner::Limits& limits = loaded->runner->limits();
  EXPECT_EQ(limits.kv_block_size, 8u);
  EXPECT_EQ(limits.num_kv_blocks, 4u * 128 / 8);
  EXPECT_THAT(log_, AllOf(HasSubstr("cpu_isa="), HasSubstr("kv_blocks=64"), HasSubstr("rows=")));
}

TEST_F(TorchRunnerTest, TakesItsNameFromTheFolder) {
  options_.model = folder_.path() + "/";
  const auto runner = Load(MakeTinySwitch());
  ASSERT_TRUE(runner.ok());
  EXPECT_EQ((*runner)->description().name,
            std::filesystem::path(folder_.path()).filename().string());
}

TEST_F(TorchRunnerTest, UsesMatchingWeightsInPlaceAndConvertsOthers) {
  ASSERT_TRUE(Load(MakeTinySwitch(Dtype::kFloat32)).ok());
  EXPECT_THAT(log_, HasSubstr("copied=\"0 B\""));
  log_.clear();
  options_.dtype = "bfloat16";
  ASSERT_TRUE(Load(MakeTinySwitch(Dtype::kFloat32)).ok());
  EXPECT_THAT(log_, Not(HasSubstr("copied=\"0 B\"")));
}

TEST_F(TorchRunnerTest, RefusesOptionsThatCannotBe) {
  const TinyModel model = MakeTinySwitch();
  options_.device = "cuda:1000";
  absl::Status status = LoadStatus(model);
  EXPECT_FALSE(status.ok());
  EXPECT_EQ(status, CreateCudaBackend(1000).status());
  options_.device = "auto";

  options_.max_context = 129;
  EXPECT_THAT(LoadStatus(model).message(), HasSubstr("129 is more than the model's 128"));
  options_.max_context = 0;

  options_.dtype = "int8";
  EXPECT_THAT(LoadStatus(model).message(), HasSubstr("'int8'"));
  options_.dtype = "auto";

  options_.cpu_isa = "neon";
  EXPECT_THAT(LoadStatus(model).message(), HasSubstr("'neon'"));
  options_.cpu_isa = "auto";

  options_.model = "";
  EXPECT_EQ(TorchRunner::Load(options_, logger_).status().code(),
            absl::StatusCode::kInvalidArgument);
  options_.model = folder_ / "nowhere";
  EXPECT_EQ(TorchRunner::Load(options_, logger_).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(TorchRunnerTest, NamesAMissingTensor) {
  TinyModel model = MakeTinySwitch();
  model.tensors.erase("model.layers.2.mlp.pregate.weight");
  EXPECT_THAT(
      LoadStatus(model).message(),
      AllOf(HasSubstr("model.layers.2.mlp.pregate.weight is missing"), HasSubstr("[4, 64]")));
}

TEST_F(TorchRunnerTest, NamesATensorOfTheWrongShape) {
  TinyModel model = MakeTinyQwen3Moe();
  model.tensors["model.layers.1.self_attn.k_proj.weight"].shape = {48, 40};
  const absl::Status status = LoadStatus(model);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(),
              AllOf(HasSubstr("model.layers.1.self_attn.k_proj.weight"),
                    HasSubstr("model.safetensors"),
                    HasSubstr("has shape [48, 40]; expected [40, 48]")));
}

TEST_F(TorchRunnerTest, NamesATruncatedFile) {
  MakeTinySwitch().Write(folder_.path());
  const std::string path = folder_ / "model.safetensors";
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - 100);
  const absl::Status status = TorchRunner::Load(options_, logger_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("model.safetensors"));
}

TEST_F(TorchRunnerTest, LogsTensorsWithoutUse) {
  TinyModel model = MakeTinySwitch();
  model.tensors["model.layers.0.extra.weight"] = {.shape = {2}, .numbers = {1, 2}};
  EXPECT_TRUE(LoadStatus(model).ok());
  EXPECT_THAT(log_, AllOf(HasSubstr("does not use"), HasSubstr("model.layers.0.extra.weight")));
}

TEST_F(TorchRunnerTest, FindsDenseWeightsThatAreNotFiniteAtLoad) {
  for (const char* name : {"model.embed_tokens.weight",
                           "model.norm.weight",
                           "model.layers.0.mlp.gate.weight",
                           "model.layers.3.self_attn.o_proj.weight"}) {
    TinyModel model = MakeTinySwitch();
    model.tensors[name].numbers.back() = std::numeric_limits<float>::quiet_NaN();
    const absl::Status status = LoadStatus(model);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(status.message(), AllOf(HasSubstr(name), HasSubstr("not finite")));
  }
}

TEST_F(TorchRunnerTest, FindsExpertsThatAreNotFiniteWhenTheyArePacked) {
  TinyModel model = MakeTinyQwen3Moe();
  model.tensors["model.layers.1.mlp.experts.5.down_proj.weight"].numbers[7] =
      std::numeric_limits<float>::infinity();
  const absl::Status status = LoadStatus(model);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(
      std::string(status.message()),
      AllOf(HasSubstr("model.layers.1.mlp.experts.5.down_proj.weight"), HasSubstr("not finite")));
}

TEST_F(TorchRunnerTest, DrawsForTheSequencesThatAsk) {
  const auto loaded = Load(MakeTinyQwen3Moe());
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  TorchRunner& runner = **loaded;
  const std::vector<uint32_t> first = {5, 6, 7};
  const std::vector<uint32_t> second = {8, 9, 10, 11};
  const std::vector<uint32_t> first_blocks = {3};
  const std::vector<uint32_t> second_blocks = {1};
  const std::vector<uint32_t> third_blocks = {0};
  const Sampling greedy{.temperature = 0, .logprobs = 2};
  const Sampling random{.temperature = 1.5f, .top_k = 40, .top_p = 0.9f, .seed = 9};
  const absl::StatusOr<StepResult> result =
      runner.Run({.sequences = {Step(first, first_blocks, &greedy),
                                Step(second, second_blocks, nullptr),
                                Step(second, third_blocks, &random)}});
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(result->sequences.size(), 3u);
  EXPECT_FALSE(result->sequences[1].token.has_value());

  // The greedy one again, from raw logits.
  const TokenRun run = {.token_ids = first, .first_position = 0, .blocks = first_blocks};
  const uint32_t last = 2;
  const auto logits = runner.Forward({.runs = {&run, 1}, .logit_tokens = {&last, 1}}, nullptr);
  ASSERT_TRUE(logits.ok());
  const auto best = std::max_element(logits->begin(), logits->end());
  const std::optional<GeneratedToken>& token = result->sequences[0].token;
  ASSERT_TRUE(token.has_value());
  EXPECT_EQ(token->token_id, best - logits->begin());
  double sum = 0;
  for (const float logit : *logits) sum += std::exp(double{logit});
  ASSERT_TRUE(token->logprob.has_value());
  EXPECT_NEAR(token->logprob->logprob, *best - std::log(sum), 1e-5);
  ASSERT_EQ(token->logprob->top.size(), 2u);
  EXPECT_EQ(token->logprob->top[0].token_id, token->token_id);
  EXPECT_GE(token->logprob->top[0].logprob, token->logprob->top[1].logprob);

  // The random one by itself: the same token, without logprobs.
  const auto alone = runner.Run({.sequences = {Step(second, second_blocks, &random)}});
  ASSERT_TRUE(alone.ok());
  EXPECT_EQ(alone->sequences[0].token->token_id, result->sequences[2].token->token_id);
  EXPECT_FALSE(alone->sequences[0].token->logprob.has_value());
}

// What the model itself breaks: huge weights make logits that are no numbers.
TEST_F(TorchRunnerTest, FailsASequenceWhoseLogitsAreNotFinite) {
  TinyModel model = MakeTinySwitch();
  for (float& number : model.tensors["model.norm.weight"].numbers) number = 3e38f;
  const auto runner = Load(model);
  ASSERT_TRUE(runner.ok()) << runner.status();
  const std::vector<uint32_t> ids = {1};
  const std::vector<uint32_t> blocks = {0};
  const Sampling sampling;
  const auto result = (*runner)->Run({.sequences = {Step(ids, blocks, &sampling)}});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->sequences[0].status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(result->sequences[0].status.message(), HasSubstr("not a finite number"));
}

// A link on which a copy takes far longer than a step computes, and slots for a quarter; then slots
// for all, so that nothing has to be waited for any more.
TEST_F(TorchRunnerTest, TheAdaptiveCodecTakesSmallerExpertsWhileStepsWait) {
  options_.experts.codec = "adaptive";
  options_.experts.capacity = "25%";
  options_.experts.speculation = "none";
  options_.experts.simulated_link = "1GiB/s,2ms";
  options_.experts.pack_folder = folder_ / "packs";
  const auto loaded = Load(MakeTinyQwen3Moe());
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  TorchRunner& runner = **loaded;
  const std::vector<uint32_t> blocks = {0};
  ExpertUsage used;
  // Steps with tokens that go to many experts, until loads take `codec`.
  const auto run_until = [&](const std::string& codec) {
    for (uint32_t step = 0; step < 2000; ++step) {
      if (runner.experts().Read().load_codec == codec) return true;
      const std::vector<uint32_t> ids = {step % 96, (step * 7) % 96, (step * 31) % 96};
      const auto result = runner.Run({.sequences = {Step(ids, blocks, nullptr)}});
      EXPECT_TRUE(result.ok()) << result.status();
      used += result->sequences[0].expert_usage;
    }
    return false;
  };
  EXPECT_EQ(runner.experts().Read().codec, "adaptive");
  EXPECT_EQ(runner.experts().Read().load_codec, "none");
  EXPECT_TRUE(run_until("int8"));
  EXPECT_EQ(used.reduced_precision_tokens, 0u);

  ASSERT_TRUE(runner.experts().SetCapacity("100%").ok());
  EXPECT_TRUE(run_until("none"));
  EXPECT_GT(used.reduced_precision_tokens, 0u);
  RecordedStats stats;
  runner.VisitStats(stats);
  EXPECT_EQ(stats.value("expert_reduced_precision_tokens_total"),
            static_cast<double>(used.reduced_precision_tokens));
  EXPECT_EQ(stats.value("expert_load_codec_changes_total{codec=\"int8\"}"), 1);
  EXPECT_EQ(stats.value("expert_load_codec_changes_total{codec=\"none\"}"), 1);
  EXPECT_EQ(stats.violation(), "");
}

TEST_F(TorchRunnerTest, ShowsItsMemory) {
  const auto runner = Load(MakeTinySwitch());
  ASSERT_TRUE(runner.ok());
  RecordedStats stats;
  (*runner)->VisitStats(stats);
  for (const char* pool : {"dense", "expert", "kv", "workspace"}) {
    EXPECT_GT(stats.value(absl::StrCat("device_memory_bytes{pool=\"", pool, "\"}")), 0);
  }
  EXPECT_EQ(stats.violation(), "");
}

// What a few requests get from a scheduler over `runner` with so many KV blocks and so many running
// together: the logprobs to the bit.
std::vector<std::vector<std::pair<uint32_t, float>>> Answers(TorchRunner& runner,
                                                             uint32_t num_kv_blocks,
                                                             uint32_t max_running,
                                                             RecordedStats& recorded) {
  EngineStats stats;
  Scheduler scheduler({.max_batch_tokens = 128,
                       .max_running = max_running,
                       .kv_block_size = runner.limits().kv_block_size,
                       .num_kv_blocks = num_kv_blocks},
                      stats);
  std::vector<std::shared_ptr<ResponseStream>> streams;
  for (uint32_t i = 0; i < 4; ++i) {
    Request request;
    // They begin alike: two full blocks.
    for (uint32_t k = 0; k < 19 + 5 * i; ++k) {
      request.prompt_token_ids.push_back((k < 18 ? k : 7 * i + k) % 60);
    }
    request.stopping.max_tokens = 30;
    request.sampling.seed = i;
    request.sampling.temperature = i % 2 == 0 ? 1.f : 0.f;
    request.sampling.logprobs = 0;
    streams.push_back(std::make_shared<ResponseStream>());
    scheduler.Add(std::make_unique<Sequence>(
        10 * num_kv_blocks + i, std::move(request), streams.back(), TimePoint()));
  }
  while (!scheduler.empty()) {
    absl::StatusOr<StepResult> result = runner.Run(scheduler.Plan(TimePoint()));
    EXPECT_TRUE(result.ok()) << result.status();
    if (!result.ok()) return {};
    scheduler.Apply(*std::move(result), TimePoint());
  }
  for (const Scheduler::Ended& ended : scheduler.TakeEnded()) {
    EXPECT_TRUE(ended.completion.status.ok()) << ended.completion.status;
  }
  std::vector<std::vector<std::pair<uint32_t, float>>> answers;
  for (const auto& stream : streams) {
    auto& answer = answers.emplace_back();
    for (const GeneratedToken& token : stream->Take().tokens) {
      answer.emplace_back(token.token_id, token.logprob->logprob);
    }
  }
  stats.Visit({.kv_blocks_total = 1}, recorded);
  return answers;
}

TEST_F(TorchRunnerTest, PreemptionAndReuseOfPrefixesChangeNoBit) {
  for (const TinyModel& model : {MakeTinyQwen3Moe(Dtype::kBfloat16), MakeTinySwitch()}) {
    const auto runner = Load(model);
    ASSERT_TRUE(runner.ok()) << runner.status();
    // Side by side from the first step on: neither.
    RecordedStats stats;
    const auto undisturbed = Answers(**runner, 64, 4, stats);
    EXPECT_EQ(stats.value("preemptions_total"), 0);
    EXPECT_EQ(stats.value("prompt_tokens_total{source=\"prefix_cache\"}"), 0);
    EXPECT_THAT(undisturbed, testing::Each(testing::SizeIs(30)));

    RecordedStats one_by_one;
    EXPECT_EQ(Answers(**runner, 63, 1, one_by_one), undisturbed);
    EXPECT_EQ(one_by_one.value("prompt_tokens_total{source=\"prefix_cache\"}"), 3 * 16);

    RecordedStats crowded;
    EXPECT_EQ(Answers(**runner, 16, 4, crowded), undisturbed);
    EXPECT_GT(crowded.value("preemptions_total"), 0);
  }
}

}  // namespace
}  // namespace pregate
