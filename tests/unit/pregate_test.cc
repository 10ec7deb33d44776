#include "core/pregate.h"

#include <string>
#include <utility>

#include "gtest/gtest.h"
#include "tests/support/fake_clock.h"
#include "tests/support/fake_runner.h"
#include "tests/support/recorded_stats.h"
#include "tests/support/stream_reader.h"
#include "tests/support/temp_folder.h"

namespace pregate {
namespace {

constexpr char kTokenizerJson[] =
    R"({"version": "1.0", "added_tokens": [],
        "model": {"type": "WordLevel", "vocab": {"one": 0, "two": 1}, "unk_token": "one"}})";

class EngineTest : public ::testing::Test {
 protected:
  EngineTest() { folder_.Write("tokenizer.json", kTokenizerJson); }

  Engine::Parts MakeParts(FakeRunner::Options runner = {}) {
    Engine::Parts parts;
    parts.model.name = "fake";
    parts.model.vocab_size = 1000;
    parts.model.max_context = 256;
    absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Load(folder_.path());
    EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
    parts.tokenizer = *std::move(tokenizer);
    auto fake = std::make_unique<FakeRunner>(std::move(runner));
    runner_ = fake.get();
    parts.runner = std::move(fake);
    parts.clock = std::make_unique<FakeClock>();
    return parts;
  }
  std::unique_ptr<Engine> Make() {
    absl::StatusOr<std::unique_ptr<Engine>> engine =
        Engine::Assemble(MakeParts(), EngineOptions(), logger_);
    EXPECT_TRUE(engine.ok()) << engine.status();
    return *std::move(engine);
  }
  absl::Status AssembleStatus(Engine::Parts parts, const EngineOptions& options = {}) {
    return Engine::Assemble(std::move(parts), options, logger_).status();
  }
  // The context of an engine of these.
  uint32_t MaxContext(Engine::Parts parts, const EngineOptions& options = {}) {
    auto engine = Engine::Assemble(std::move(parts), options, logger_);
    return engine.ok() ? (*engine)->model().max_context : 0;
  }

  static Request Ask(std::vector<uint32_t> prompt, uint32_t max_tokens) {
    Request request;
    request.prompt_token_ids = std::move(prompt);
    request.stopping.max_tokens = max_tokens;
    return request;
  }

  const TempFolder folder_;
  const Logger logger_;
  FakeRunner* runner_ = nullptr;
};

TEST_F(EngineTest, ShowsItsParts) {
  const std::unique_ptr<Engine> engine = Make();
  EXPECT_EQ(engine->model().name, "fake");
  EXPECT_EQ(engine->tokenizer().vocab_size(), 2u);
  EXPECT_EQ(engine->chat_template(), nullptr);
  EXPECT_EQ(engine->load().last_step, engine->clock().Now());
  EXPECT_EQ(engine->load().kv_blocks_total, 1024u);
  EXPECT_TRUE(engine->health().ok());
}

TEST_F(EngineTest, AnswersARequest) {
  const std::unique_ptr<Engine> engine = Make();
  auto stream = engine->Submit(Ask({1, 2, 3}, 4));
  ASSERT_TRUE(stream.ok()) << stream.status();
  StreamReader reader(*std::move(stream));
  EXPECT_TRUE(reader.AwaitCompletion().status.ok());
  EXPECT_EQ(TokenIds(reader.tokens()), TokenIds(runner_->Answer({1, 2, 3}, Sampling(), 4)));
  RecordedStats stats;
  engine->VisitStats(stats);
  EXPECT_EQ(stats.count("inter_token_latency_seconds"), 3u);
  EXPECT_EQ(stats.value("fake_runner_steps_total"), 4);
}

TEST_F(EngineTest, RefusesAnInvalidRequest) {
  const std::unique_ptr<Engine> engine = Make();
  EXPECT_EQ(
      engine->Submit(Ask({1000}, 1)).status(),
      absl::InvalidArgumentError("prompt_token_ids[0] is 1000: the vocabulary has 1000 tokens"));
  EXPECT_EQ(engine->Submit(Ask({1}, 256)).status(),
            absl::InvalidArgumentError(
                "a prompt of 1 tokens and max_tokens of 256 exceed the context of 256 tokens"));
}

TEST_F(EngineTest, RefusesRequestsOnceShutDown) {
  const std::unique_ptr<Engine> engine = Make();
  engine->Shutdown(engine->clock().Now());
  EXPECT_EQ(engine->Submit(Ask({1}, 1)).status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(EngineTest, TakesTheLeastContext) {
  EXPECT_EQ(MaxContext(MakeParts()), 256u);
  EngineOptions options;
  options.max_context = 100;
  EXPECT_EQ(MaxContext(MakeParts(), options), 100u);
  options.max_context = 1000;
  EXPECT_EQ(MaxContext(MakeParts(), options), 256u);

  FakeRunner::Options small_cache;
  small_cache.limits.num_kv_blocks = 20;
  EXPECT_EQ(MaxContext(MakeParts(small_cache)), 80u);

  Engine::Parts parts = MakeParts();
  parts.model.max_context = 50;
  EXPECT_EQ(MaxContext(std::move(parts)), 50u);
}

TEST_F(EngineTest, RefusesPartsThatDoNotFit) {
  EngineOptions no_batch;
  no_batch.max_batch_tokens = 0;
  EXPECT_EQ(AssembleStatus(MakeParts(), no_batch),
            absl::InvalidArgumentError("max_batch_tokens is 0"));
  EngineOptions none_running;
  none_running.max_running = 0;
  EXPECT_EQ(AssembleStatus(MakeParts(), none_running),
            absl::InvalidArgumentError("max_running is 0"));
  FakeRunner::Options no_cache;
  no_cache.limits.num_kv_blocks = 0;
  EXPECT_EQ(AssembleStatus(MakeParts(no_cache)),
            absl::InvalidArgumentError("the runner's num_kv_blocks is 0"));
  Engine::Parts parts = MakeParts();
  parts.model.vocab_size = 7;
  EXPECT_EQ(AssembleStatus(std::move(parts)),
            absl::InvalidArgumentError("the runner's vocabulary has 1000 tokens, the model's 7"));
}

}  // namespace
}  // namespace pregate
