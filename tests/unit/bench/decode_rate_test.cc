#include "bench/decode_rate.h"

#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/fake_clock.h"
#include "tests/support/fake_runner.h"

namespace pregate {
namespace {

// An engine whose every step takes a second and whose first waits for all requests.
class DecodeRate : public ::testing::Test {
 protected:
  void Start(FakeRunner::Options options, uint32_t num_requests) {
    auto clock = std::make_unique<FakeClock>();
    options.before_step =
        [this, num_requests, seen = false, clock = clock.get()](const StepPlan&) mutable {
          while (!seen) {
            const Engine::Load load = engine_->load();
            seen = load.running + load.waiting >= num_requests;
          }
          clock->Advance(FromSeconds(1));
          return absl::OkStatus();
        };
    ModelDescription model;
    model.vocab_size = options.limits.vocab_size;
    model.max_context = options.limits.max_context;
    auto engine =
        Engine::Assemble({.model = model,
                          .tokenizer = *Tokenizer::Load(PREGATE_SOURCE_DIR "/models/switch-mini"),
                          .chat_template = nullptr,
                          .runner = std::make_unique<FakeRunner>(std::move(options)),
                          .clock = std::move(clock)},
                         EngineOptions(),
                         logger_);
    ASSERT_TRUE(engine.ok()) << engine.status();
    engine_ = *std::move(engine);
  }

  const Logger logger_{LogLevel::kError};
  std::unique_ptr<Engine> engine_;
};

TEST_F(DecodeRate, LeavesTheFirstTokenOut) {
  Start({}, 1);
  EXPECT_EQ(*MeasureDecodeRate(*engine_, {{1, 2, 3}}, 2), 1);
  EXPECT_EQ(*MeasureDecodeRate(*engine_, {{1, 2, 3}}, 9), 1);
}

TEST_F(DecodeRate, CountsAllSequences) {
  Start({}, 3);
  // 3 a second, less what those that start earlier have no more to say at the end: the engine
  // begins with the first before the last is there.
  const auto rate = MeasureDecodeRate(*engine_, {{1}, {2, 3}, {4}}, 100);
  ASSERT_TRUE(rate.ok()) << rate.status();
  EXPECT_LE(*rate, 3);
  EXPECT_GE(*rate, 3 - 2 * 2 / 99.0);
}

TEST_F(DecodeRate, PassesErrorsOn) {
  FakeRunner::Options options;
  options.before_token = [](const SequenceStep& step) {
    return step.first_position == 5 ? absl::InternalError("a fault at 5") : absl::OkStatus();
  };
  Start(options, 1);
  EXPECT_EQ(MeasureDecodeRate(*engine_, {{1}, {2}}, 9).status().message(), "a fault at 5");
  EXPECT_EQ(MeasureDecodeRate(*engine_, {{1}, {}}, 9).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace pregate
