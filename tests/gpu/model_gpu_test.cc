// Whole models on a GPU: beside the CPU's float32, and against themselves, to the bit.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iostream>
#include <numeric>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bench/lockstep_decoder.h"
#include "core/model/torch_runner.h"
#include "core/text/tokenizer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/gpu/gpu.h"
#include "tests/support/temp_folder.h"

namespace pregate {
namespace {

constexpr uint32_t kBlockSize = 16;
constexpr uint32_t kMaxContext = 256;
constexpr size_t kBatch = 4;
constexpr uint32_t kSteps = 6;

class ModelGpuTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (MakeGpu() == nullptr) GTEST_SKIP() << CreateCudaBackend(0).status();
  }

  std::string folder() const { return absl::StrCat(PREGATE_SOURCE_DIR, "/models/", GetParam()); }

  std::unique_ptr<TorchRunner> Load(const std::string& device,
                                    const std::string& dtype,
                                    const std::string& codec) {
    EngineOptions options;
    options.model = folder();
    options.device = device;
    options.dtype = dtype;
    options.max_running = 8;
    options.max_context = kMaxContext;
    options.kv_block_size = kBlockSize;
    options.experts.codec = codec;
    options.experts.pack_folder = packs_.path();
    options.experts.gpu_memory_budget = device == "cpu" ? 0 : uint64_t{2} << 30;
    absl::StatusOr<std::unique_ptr<TorchRunner>> runner = TorchRunner::Load(options, logger_);
    EXPECT_TRUE(runner.ok()) << runner.status();
    return runner.ok() ? *std::move(runner) : nullptr;
  }

  // The first lines of the prompts' file, each of at most `length` tokens.
  std::vector<std::vector<uint32_t>> Prompts(size_t count, size_t length) const {
    const auto tokenizer = Tokenizer::Load(folder());
    EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
    std::ifstream file(absl::StrCat(PREGATE_SOURCE_DIR, "/tests/data/prompts.txt"));
    std::vector<std::vector<uint32_t>> prompts;
    for (std::string line; prompts.size() < count && std::getline(file, line);) {
      std::vector<uint32_t> ids = (*tokenizer)->Encode(line, false).value();
      ids.resize(std::min(ids.size(), length));
      prompts.push_back(std::move(ids));
    }
    return prompts;
  }

  // All logits of a sequence by itself, its tokens cut into pieces of `piece`.
  static std::vector<float> LogitsOf(TorchRunner& runner,
                                     const std::vector<uint32_t>& ids,
                                     size_t piece) {
    std::vector<uint32_t> blocks((ids.size() + kBlockSize - 1) / kBlockSize);
    std::iota(blocks.rbegin(), blocks.rend(), 3);
    std::vector<float> all;
    for (size_t begin = 0; begin < ids.size(); begin += piece) {
      const size_t count = std::min(piece, ids.size() - begin);
      std::vector<uint32_t> rows(count);
      std::iota(rows.begin(), rows.end(), 0);
      const TokenRun run = {.token_ids = absl::MakeConstSpan(ids).subspan(begin, count),
                            .first_position = static_cast<uint32_t>(begin),
                            .blocks = blocks};
      const auto logits = runner.Forward({.runs = {&run, 1}, .logit_tokens = rows}, nullptr);
      EXPECT_TRUE(logits.ok()) << logits.status();
      if (!logits.ok()) return {};
      all.insert(all.end(), logits->begin(), logits->end());
    }
    return all;
  }

  // Every bit of the logits of prefill and greedy decode, each prompt alone and in batches.
  static std::vector<uint64_t> Digests(TorchRunner& runner,
                                       const std::vector<std::vector<uint32_t>>& prompts) {
    std::vector<uint64_t> digests;
    for (const size_t batch : {size_t{1}, kBatch}) {
      for (size_t first = 0; first + batch <= prompts.size(); first += batch) {
        const auto begin = prompts.begin() + static_cast<std::ptrdiff_t>(first);
        absl::StatusOr<LockstepDecoder> decoder = LockstepDecoder::Create(
            runner, {begin, begin + static_cast<std::ptrdiff_t>(batch)}, kSteps + 1);
        EXPECT_TRUE(decoder.ok()) << decoder.status();
        absl::Status status = decoder->Prefill();
        for (uint32_t i = 0; i < kSteps && status.ok(); ++i) status = decoder->Step();
        EXPECT_TRUE(status.ok()) << status;
        digests.push_back(decoder->logits_digest());
      }
    }
    return digests;
  }

  const Logger logger_{LogLevel::kError};
  TempFolder packs_;
};

TEST_P(ModelGpuTest, SaysWhatTheCpuSays) {
  std::unique_ptr<TorchRunner> gpu = Load("cuda", "auto", "none");
  std::unique_ptr<TorchRunner> cpu = Load("cpu", "float32", "none");
  ASSERT_TRUE(gpu != nullptr && cpu != nullptr);
  const size_t vocab = gpu->description().vocab_size;
  size_t positions = 0;
  size_t same = 0;
  std::vector<double> errors;  // ‖difference‖ / ‖the CPU's‖ of each position
  for (const std::vector<uint32_t>& ids : Prompts(40, 60)) {
    const std::vector<float> ours = LogitsOf(*gpu, ids, ids.size());
    const std::vector<float> theirs = LogitsOf(*cpu, ids, ids.size());
    ASSERT_EQ(ours.size(), theirs.size());
    for (size_t at = 0; at < ours.size(); at += vocab, ++positions) {
      const auto top = [&](const std::vector<float>& logits) {
        const auto begin = logits.begin() + static_cast<std::ptrdiff_t>(at);
        return std::max_element(begin, begin + static_cast<std::ptrdiff_t>(vocab)) - begin;
      };
      same += top(ours) == top(theirs) ? 1 : 0;
      double difference = 0;
      double norm = 0;
      for (size_t i = at; i < at + vocab; ++i) {
        difference += std::pow(ours[i] - theirs[i], 2);
        norm += std::pow(theirs[i], 2);
      }
      errors.push_back(std::sqrt(difference / norm));
    }
  }
  std::sort(errors.begin(), errors.end());
  const double agreement = static_cast<double>(same) / static_cast<double>(positions);
  std::cout << positions << " positions, the same top-1 in " << agreement << ", relative error "
            << errors[errors.size() / 2] << " (median), " << errors[errors.size() * 99 / 100]
            << " (p99)" << std::endl;
  EXPECT_LE(errors[errors.size() / 2], 2e-2);
  // bfloat16 turns a close choice now and then, and a router's with it.
  EXPECT_GE(agreement, 0.97);
}

TEST_P(ModelGpuTest, NeitherPiecesNorNeighboursMatter) {
  std::unique_ptr<TorchRunner> gpu = Load("cuda", "auto", "none");
  ASSERT_NE(gpu, nullptr);
  const std::vector<uint32_t> ids = [&] {
    std::vector<uint32_t> joined;
    for (const auto& prompt : Prompts(12, 60)) {
      joined.insert(joined.end(), prompt.begin(), prompt.end());
    }
    joined.resize(std::min<size_t>(joined.size(), 150));
    return joined;
  }();
  const std::vector<float> whole = LogitsOf(*gpu, ids, ids.size());
  for (const size_t piece : {1, 7, 16, 33, 64}) {
    const std::vector<float> pieces = LogitsOf(*gpu, ids, piece);
    ASSERT_EQ(pieces.size(), whole.size());
    EXPECT_EQ(std::memcmp(pieces.data(), whole.data(), whole.size() * sizeof(float)), 0) << piece;
  }
  // The same tokens at the end of a batch of others.
  const std::vector<uint32_t> few(ids.begin(), ids.begin() + 20);
  const std::vector<uint32_t> own = {60, 61};
  std::vector<std::vector<uint32_t>> blocks;
  std::vector<TokenRun> runs;
  for (uint32_t i = 0; i < 5; ++i) blocks.push_back({20 + 3 * i, 21 + 3 * i, 22 + 3 * i});
  for (uint32_t i = 0; i < 5; ++i) {
    runs.push_back({.token_ids = absl::MakeConstSpan(ids).subspan(20 * i, 13 + 6 * i),
                    .blocks = blocks[i],
                    .sequence = i});
  }
  runs.push_back({.token_ids = few, .blocks = own, .sequence = 9});
  uint32_t first = 0;
  for (size_t i = 0; i + 1 < runs.size(); ++i) {
    first += static_cast<uint32_t>(runs[i].token_ids.size());
  }
  std::vector<uint32_t> rows(few.size());
  std::iota(rows.begin(), rows.end(), first);
  const auto logits = gpu->Forward({.runs = runs, .logit_tokens = rows}, nullptr);
  ASSERT_TRUE(logits.ok()) << logits.status();
  EXPECT_EQ(std::memcmp(logits->data(), whole.data(), logits->size() * sizeof(float)), 0);
}

// Greedy tokens are found on the device, unless more is asked of their logits.
TEST_P(ModelGpuTest, TheDeviceFindsTheMostLikelyToken) {
  std::unique_ptr<TorchRunner> gpu = Load("cuda", "auto", "none");
  ASSERT_NE(gpu, nullptr);
  const std::vector<std::vector<uint32_t>> prompts = Prompts(10, 40);
  Sampling greedy;
  greedy.temperature = 0;
  Sampling with_logprobs = greedy;
  with_logprobs.logprobs = 0;
  std::vector<uint32_t> blocks[2] = {{4, 5, 6}, {9, 8, 7}};
  for (const std::vector<uint32_t>& prompt : prompts) {
    StepPlan plan;
    for (const Sampling* sampling : {&with_logprobs, &greedy}) {
      const size_t i = plan.sequences.size();
      plan.sequences.push_back({.sequence_id = i,
                                .token_ids = prompt,
                                .first_position = 0,
                                .blocks = blocks[i],
                                .sampling = sampling});
    }
    const absl::StatusOr<StepResult> result = gpu->Run(plan);
    ASSERT_TRUE(result.ok()) << result.status();
    ASSERT_TRUE(result->sequences[0].token.has_value() && result->sequences[1].token.has_value());
    EXPECT_EQ(result->sequences[0].token->token_id, result->sequences[1].token->token_id);
    EXPECT_TRUE(result->sequences[0].token->logprob.has_value());
    EXPECT_FALSE(result->sequences[1].token->logprob.has_value());
  }
}

// Residency, prediction and where experts are read from change no bit.
TEST_P(ModelGpuTest, OffloadingChangesNoBit) {
  const std::vector<std::vector<uint32_t>> prompts = Prompts(8, 24);
  for (const char* codec : {"none", "int8", "int4", "sparse"}) {
    std::unique_ptr<TorchRunner> gpu = Load("cuda", "auto", codec);
    ASSERT_NE(gpu, nullptr);
    ExpertOffload& experts = gpu->experts();
    ASSERT_TRUE(experts.SetMemoryStrategy("single_async").ok());
    ASSERT_TRUE(experts.SetCapacity("100%").ok());
    const std::vector<uint64_t> expected = Digests(*gpu, prompts);
    std::vector<std::string> modes = PredictorNames();
    if (!experts.Read().model.is_pregated) {
      modes.erase(std::find(modes.begin(), modes.end(), "pregate"));
    }
    for (const char* strategy : {"single_async", "double_buffer", "streaming", "cpu_offload"}) {
      for (const std::string& mode : modes) {
        SCOPED_TRACE(absl::StrCat(codec, ", ", strategy, ", ", mode));
        ASSERT_TRUE(experts.SetMemoryStrategy(strategy).ok());
        if (std::string(strategy) != "cpu_offload") {
          ASSERT_TRUE(experts.SetCapacity(mode == "none" ? "25%" : "50%").ok());
        }
        ExpertOffload::SpeculationChange change;
        change.mode = mode;
        ASSERT_TRUE(experts.SetSpeculation(change).ok());
        EXPECT_EQ(Digests(*gpu, prompts), expected);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models,
                         ModelGpuTest,
                         testing::Values("switch-mini", "qwen3-moe-mini"),
                         [](const auto& model) {
                           return model.param[0] == 's' ? "SwitchMini" : "Qwen3MoeMini";
                         });

}  // namespace
}  // namespace pregate
