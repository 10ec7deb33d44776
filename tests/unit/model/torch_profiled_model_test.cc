// A model as device profiles see it, through the runner that makes it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <numeric>
#include <vector>

#include "core/base/thread.h"
#include "core/model/torch_runner.h"
#include "tests/support/temp_folder.h"
#include "tests/unit/model/tiny_model.h"

namespace pregate {
namespace {

using testing::ElementsAre;
using testing::Field;

class TorchProfiledModelTest : public testing::Test {
 protected:
  TorchProfiledModelTest()
      : logger_(LogLevel::kError, LogFormat::kText, [](const std::string&) {}) {
    options_.model = folder_.path();
    options_.threads = 1;
    options_.max_batch_tokens = 64;
    options_.max_running = 4;
    options_.kv_block_size = 8;
    options_.experts.pack_folder = folder_ / "packs";
  }

  std::unique_ptr<TorchRunner> Load(const TinyModel& model) {
    model.Write(folder_.path());
    absl::StatusOr<std::unique_ptr<TorchRunner>> runner = TorchRunner::Load(options_, logger_);
    EXPECT_TRUE(runner.ok()) << runner.status();
    return runner.ok() ? *std::move(runner) : nullptr;
  }

  static absl::Status GoOn(uint32_t, uint32_t) { return absl::OkStatus(); }

  TempFolder folder_;
  EngineOptions options_;
  Logger logger_;
};

TEST_F(TorchProfiledModelTest, NamesTheEncodingsThatTheModelCanBeServedIn) {
  options_.experts.codec = "int8";
  const auto runner = Load(MakeTinyQwen3Moe());
  ASSERT_NE(runner, nullptr);
  EXPECT_EQ(runner->profiled()->device(), "cpu");
  const std::vector<ProfiledModel::Encoding> encodings = runner->profiled()->encodings();
  EXPECT_THAT(encodings,
              ElementsAre(Field(&ProfiledModel::Encoding::codec, "none"),
                          Field(&ProfiledModel::Encoding::codec, "int8"),
                          Field(&ProfiledModel::Encoding::codec, "int4")));
  EXPECT_GT(encodings[0].record_bytes, encodings[1].record_bytes);
}

TEST_F(TorchProfiledModelTest, PlansForTheCodecAndTheSequencesAskedFor) {
  options_.experts.gpu_memory_budget = uint64_t{64} << 20;
  const auto runner = Load(MakeTinyQwen3Moe());
  ASSERT_NE(runner, nullptr);
  const auto few = runner->profiled()->PlanRoom("none", 2);
  const auto many = runner->profiled()->PlanRoom("int8", 16);
  ASSERT_TRUE(few.ok()) << few.status();
  ASSERT_TRUE(many.ok()) << many.status();
  EXPECT_EQ(few->slots.num_layers, 3u);
  EXPECT_EQ(few->slots.num_experts, 8u);
  EXPECT_EQ(few->slots.experts_per_token, 2u);
  EXPECT_FALSE(few->slots.shares_memory) << "a budget is for a device of its own";
  EXPECT_TRUE(few->host_holds_all);
  EXPECT_EQ(many->slots.max_running, 16u);
  EXPECT_LT(many->slots.budget_bytes, few->slots.budget_bytes) << "more keys and values";
  EXPECT_LT(many->slots.slot_bytes, few->slots.slot_bytes);
}

TEST_F(TorchProfiledModelTest, MeasuresEachCodec) {
  for (const char* codec : {"none", "int8", "int4", "sparse", "adaptive"}) {
    options_.experts.codec = codec;
    const auto runner = Load(MakeTinyQwen3Moe(Dtype::kBfloat16));
    ASSERT_NE(runner, nullptr);
    const auto profile = runner->experts().MeasureDevice(*runner->profiled(), GoOn);
    ASSERT_TRUE(profile.ok()) << codec << ": " << profile.status();
    EXPECT_EQ(profile->codec, std::string(codec) == "adaptive" ? "none" : codec);
    EXPECT_FALSE(profile->compute.empty());
  }
}

TEST_F(TorchProfiledModelTest, LeavesTheLogitsOfARunningModelAsTheyAre) {
  options_.experts.capacity = "25%";
  const auto runner = Load(MakeTinySwitch());
  ASSERT_NE(runner, nullptr);
  const std::vector<uint32_t> ids = {5, 17, 80, 33, 2, 61};
  std::vector<uint32_t> logit_tokens(ids.size());
  std::iota(logit_tokens.begin(), logit_tokens.end(), 0);
  const uint32_t blocks[] = {0};
  const TokenRun run = {.token_ids = ids, .blocks = blocks};
  const auto logits = [&] {
    const auto span = runner->Forward(
        {.runs = absl::MakeConstSpan(&run, 1), .logit_tokens = logit_tokens}, nullptr);
    EXPECT_TRUE(span.ok()) << span.status();
    return span.ok() ? std::vector<float>(span->begin(), span->end()) : std::vector<float>();
  };
  const std::vector<float> alone = logits();

  std::atomic<bool> is_done = false;
  absl::StatusOr<DeviceProfile> profile = absl::UnknownError("not measured");
  const Thread profiler("profiler", [&] {
    profile = runner->experts().MeasureDevice(*runner->profiled(), GoOn);
    is_done = true;
  });
  do {
    ASSERT_EQ(logits(), alone);
  } while (!is_done);
  EXPECT_TRUE(profile.ok()) << profile.status();
}

}  // namespace
}  // namespace pregate
