#include "core/engine/engine_loop.h"

#include <atomic>
#include <functional>
#include <string>
#include <thread>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/fake_clock.h"
#include "tests/support/fake_runner.h"
#include "tests/support/recorded_stats.h"
#include "tests/support/stream_reader.h"

namespace pregate {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

using std::chrono::seconds;

Request Ask(std::vector<uint32_t> prompt, uint32_t max_tokens) {
  Request request;
  request.prompt_token_ids = std::move(prompt);
  request.stopping.max_tokens = max_tokens;
  return request;
}

class EngineLoopTest : public ::testing::Test {
 protected:
  ~EngineLoopTest() override { gate_.Open(); }

  // Steps wait at the gate: Open it or release them one by one.
  void Start(const EngineLoop::Options& options, FakeRunner::Options runner = {}) {
    runner.gate = &gate_;
    runner_ = std::make_unique<FakeRunner>(std::move(runner));
    loop_ = std::make_unique<EngineLoop>(options, *runner_, clock_, logger_);
  }
  void Start(FakeRunner::Options runner = {}) {
    Start({.max_batch_tokens = 16, .max_running = 4, .max_queued = 4}, std::move(runner));
  }

  std::shared_ptr<ResponseStream> Submit(Request request) {
    absl::StatusOr<std::shared_ptr<ResponseStream>> stream = loop_->Submit(std::move(request));
    EXPECT_TRUE(stream.ok()) << stream.status();
    return stream.ok() ? *std::move(stream) : nullptr;
  }
  absl::StatusCode SubmitCode() { return loop_->Submit(Ask({1}, 1)).status().code(); }

  std::vector<uint32_t> Answer(const std::vector<uint32_t>& prompt, size_t num_tokens) {
    return TokenIds(runner_->Answer(prompt, Sampling(), num_tokens));
  }
  RecordedStats Stats() {
    RecordedStats stats;
    loop_->VisitStats(stats);
    EXPECT_EQ(stats.violation(), "");
    return stats;
  }

  const Logger logger_{
      LogLevel::kInfo, LogFormat::kText, [this](const std::string& line) { log_.push_back(line); }};
  std::vector<std::string> log_;  // written by the engine thread: read it once loop_ is gone
  FakeClock clock_;
  StepGate gate_;
  std::unique_ptr<FakeRunner> runner_;
  std::unique_ptr<EngineLoop> loop_;
};

TEST_F(EngineLoopTest, AnswersARequest) {
  Start();
  gate_.Open();
  StreamReader reader(Submit(Ask({1, 2, 3}, 5)));
  const Completion& completion = reader.AwaitCompletion();
  EXPECT_TRUE(completion.status.ok()) << completion.status;
  EXPECT_EQ(completion.reason, FinishReason::kLength);
  EXPECT_EQ(completion.prompt_tokens, 3u);
  EXPECT_EQ(completion.completion_tokens, 5u);
  EXPECT_EQ(TokenIds(reader.tokens()), Answer({1, 2, 3}, 5));
}

TEST_F(EngineLoopTest, DeliversEachTokenAsItsStepEnds) {
  Start();
  StreamReader reader(Submit(Ask({1, 2, 3}, 3)));
  gate_.Release();
  EXPECT_THAT(reader.AwaitTokens(1), SizeIs(1));
  gate_.Release();
  EXPECT_THAT(reader.AwaitTokens(2), SizeIs(2));
  gate_.Open();
  reader.AwaitCompletion();
}

TEST_F(EngineLoopTest, AdvancesLateComersTogetherWithTheOthers) {
  Start();
  StreamReader first(Submit(Ask({1, 2}, 4)));
  gate_.AwaitStep();
  StreamReader second(Submit(Ask({3}, 2)));
  gate_.Open();
  first.AwaitCompletion();
  second.AwaitCompletion();
  EXPECT_EQ(TokenIds(first.tokens()), Answer({1, 2}, 4));
  EXPECT_EQ(TokenIds(second.tokens()), Answer({3}, 2));
  const std::vector<FakeRunner::RecordedStep> steps = runner_->steps();
  ASSERT_THAT(steps, SizeIs(4));
  EXPECT_THAT(steps[0], SizeIs(1));
  EXPECT_THAT(steps[1], SizeIs(2));
}

TEST_F(EngineLoopTest, RefusesWhatTheQueueCannotHold) {
  Start({.max_batch_tokens = 16, .max_running = 1, .max_queued = 2});
  std::vector<std::unique_ptr<StreamReader>> readers;
  for (int i = 0; i < 3; ++i) {
    readers.push_back(std::make_unique<StreamReader>(Submit(Ask({1}, 1))));
  }
  const absl::Status refused = loop_->Submit(Ask({1}, 1)).status();
  EXPECT_EQ(refused,
            absl::ResourceExhaustedError("the queue is full: at most 2 requests wait for a place"));
  // Also once the first of them runs and the others wait.
  gate_.AwaitStep();
  EXPECT_EQ(SubmitCode(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(loop_->load().running, 1u);
  EXPECT_EQ(loop_->load().waiting, 2u);

  gate_.Release();
  EXPECT_TRUE(readers[0]->AwaitCompletion().status.ok());
  gate_.AwaitStep();
  StreamReader next(Submit(Ask({1}, 1)));
  EXPECT_EQ(SubmitCode(), absl::StatusCode::kResourceExhausted);
  gate_.Open();
  EXPECT_TRUE(next.AwaitCompletion().status.ok());
}

TEST_F(EngineLoopTest, QueuesAsManyMoreAsCouldRunAtOnce) {
  Start({.max_batch_tokens = 16, .max_running = 3, .max_queued = 1});
  std::vector<std::unique_ptr<StreamReader>> readers;
  readers.push_back(std::make_unique<StreamReader>(Submit(Ask({1}, 2))));
  gate_.AwaitStep();
  for (int i = 0; i < 3; ++i) {
    readers.push_back(std::make_unique<StreamReader>(Submit(Ask({1}, 2))));
  }
  EXPECT_EQ(SubmitCode(), absl::StatusCode::kResourceExhausted);
  gate_.Open();
  for (auto& reader : readers) EXPECT_TRUE(reader->AwaitCompletion().status.ok());
}

// Calls a function from within a call of Now.
class SpyClock final : public Clock {
 public:
  TimePoint Now() const override {
    if (countdown_ > 0 && --countdown_ == 0) spy_();
    return clock_.Now();
  }
  // In the call that comes behind `calls` more, on the thread that makes it.
  void CallBehind(int calls, std::function<void()> spy) {
    spy_ = std::move(spy);
    countdown_ = calls + 1;
  }

 private:
  const FakeClock clock_;
  std::function<void()> spy_;
  mutable std::atomic<int> countdown_{0};
};

TEST_F(EngineLoopTest, CountsRequestsOnTheirWayFromTheQueueToTheScheduler) {
  SpyClock clock;
  FakeRunner::Options options;
  options.gate = &gate_;
  FakeRunner runner(std::move(options));
  EngineLoop loop(
      {.max_batch_tokens = 16, .max_running = 1, .max_queued = 1}, runner, clock, logger_);
  StreamReader running(*loop.Submit(Ask({1}, 3)));
  gate_.AwaitStep();
  StreamReader waiting(*loop.Submit(Ask({1}, 3)));
  // The engine asks for the time when the step ends, and again when the next one begins and the
  // waiting request has just been taken out of the queue.
  EngineLoad load;
  absl::Status refused;
  clock.CallBehind(1, [&] {
    load = loop.load();
    refused = loop.Submit(Ask({1}, 3)).status();
  });
  gate_.Open();
  EXPECT_TRUE(running.AwaitCompletion().status.ok());
  EXPECT_TRUE(waiting.AwaitCompletion().status.ok());
  EXPECT_EQ(load.running, 1u);
  EXPECT_EQ(load.waiting, 1u);
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(EngineLoopTest, FreesACancelledSequenceAtTheNextStepBoundary) {
  Start();
  StreamReader reader(Submit(Ask({1, 2, 3}, 100)));
  gate_.Release();
  reader.AwaitTokens(1);
  gate_.AwaitStep();
  EXPECT_EQ(loop_->load().running, 1u);
  EXPECT_EQ(loop_->load().kv_blocks_used, 1u);
  reader.stream().Cancel();
  gate_.Release();
  EXPECT_EQ(reader.AwaitCompletion().status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(reader.AwaitCompletion().completion_tokens, 1u);
  EXPECT_EQ(loop_->load().running, 0u);
  EXPECT_EQ(loop_->load().kv_blocks_used, 0u);
  EXPECT_EQ(Stats().value("finished_total{reason=\"cancelled\"}"), 1);
}

TEST_F(EngineLoopTest, EndsWithStopWhenTheReaderHasEnough) {
  Start();
  StreamReader reader(Submit(Ask({1, 2, 3}, 100)));
  gate_.Release(2);
  reader.AwaitTokens(2);
  gate_.AwaitStep();
  reader.stream().Stop();
  gate_.Release();
  const Completion& completion = reader.AwaitCompletion();
  EXPECT_TRUE(completion.status.ok());
  EXPECT_EQ(completion.reason, FinishReason::kStop);
  EXPECT_EQ(completion.completion_tokens, 2u);
  EXPECT_THAT(reader.tokens(), SizeIs(2));
}

TEST_F(EngineLoopTest, HonoursDeadlinesInTheQueueAndBetweenSteps) {
  Start({.max_batch_tokens = 16, .max_running = 1, .max_queued = 4});
  Request running = Ask({1}, 100);
  running.deadline = clock_.Now() + seconds(10);
  Request waiting = Ask({2}, 1);
  waiting.deadline = clock_.Now() + seconds(5);
  StreamReader first(Submit(std::move(running)));
  StreamReader second(Submit(std::move(waiting)));
  gate_.AwaitStep();
  clock_.Advance(seconds(5));
  gate_.Release();
  const Completion& expired = second.AwaitCompletion();
  EXPECT_EQ(expired.status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_DOUBLE_EQ(expired.queue_seconds, 5);
  gate_.AwaitStep();
  clock_.Advance(seconds(5));
  gate_.Release();
  EXPECT_EQ(first.AwaitCompletion().status.code(), absl::StatusCode::kDeadlineExceeded);
  for (const FakeRunner::RecordedStep& step : runner_->steps()) {
    ASSERT_THAT(step, SizeIs(1));
    EXPECT_EQ(step[0].sequence_id, 0u);
  }
  EXPECT_EQ(Stats().value("finished_total{reason=\"deadline\"}"), 2);
}

TEST_F(EngineLoopTest, AFailedStepFailsItsSequencesAndTheEngineGoesOn) {
  bool fail = true;
  FakeRunner::Options options;
  options.before_step = [&fail](const StepPlan&) {
    return std::exchange(fail, false) ? absl::ResourceExhaustedError("no memory")
                                      : absl::OkStatus();
  };
  Start(std::move(options));
  gate_.Open();
  StreamReader failed(Submit(Ask({1}, 3)));
  EXPECT_EQ(failed.AwaitCompletion().status, absl::ResourceExhaustedError("no memory"));
  EXPECT_TRUE(loop_->health().ok());
  StreamReader next(Submit(Ask({1}, 3)));
  EXPECT_TRUE(next.AwaitCompletion().status.ok());
  EXPECT_EQ(TokenIds(next.tokens()), Answer({1}, 3));
  EXPECT_EQ(Stats().value("finished_total{reason=\"error\"}"), 1);
  loop_.reset();
  EXPECT_THAT(log_, ElementsAre(HasSubstr("no memory")));
}

TEST_F(EngineLoopTest, AFailedSequenceLeavesItsNeighboursAlone) {
  FakeRunner::Options options;
  options.before_token = [](const SequenceStep& step) {
    return step.sequence_id == 0 && !step.is_prompt ? absl::InternalError("logits are NaN")
                                                    : absl::OkStatus();
  };
  Start(std::move(options));
  StreamReader failed(Submit(Ask({1}, 5)));
  gate_.AwaitStep();
  StreamReader other(Submit(Ask({2}, 5)));
  gate_.Open();
  EXPECT_EQ(failed.AwaitCompletion().status, absl::InternalError("logits are NaN"));
  EXPECT_EQ(TokenIds(failed.tokens()), Answer({1}, 1));
  EXPECT_TRUE(other.AwaitCompletion().status.ok());
  EXPECT_EQ(TokenIds(other.tokens()), Answer({2}, 5));
}

TEST_F(EngineLoopTest, EndsWhenTheRunnerCannotGoOn) {
  FakeRunner::Options options;
  options.before_step = [](const StepPlan&) { return absl::DataLossError("the device is gone"); };
  Start({.max_batch_tokens = 16, .max_running = 1, .max_queued = 4}, std::move(options));
  StreamReader running(Submit(Ask({1}, 3)));
  StreamReader waiting(Submit(Ask({1}, 3)));
  gate_.AwaitStep();
  StreamReader submitted(Submit(Ask({1}, 3)));
  EXPECT_TRUE(loop_->health().ok());
  gate_.Open();
  const absl::Status fault = absl::InternalError("the engine cannot go on: the device is gone");
  EXPECT_EQ(running.AwaitCompletion().status, fault);
  EXPECT_EQ(waiting.AwaitCompletion().status, fault);
  EXPECT_EQ(submitted.AwaitCompletion().status, fault);
  EXPECT_EQ(loop_->health(), fault);
  EXPECT_EQ(loop_->Submit(Ask({1}, 3)).status(), fault);
  EXPECT_EQ(loop_->load().running + loop_->load().waiting, 0u);
  EXPECT_EQ(Stats().value("finished_total{reason=\"error\"}"), 3);
  loop_->Shutdown(clock_.Now());
  loop_.reset();
  EXPECT_THAT(log_, ElementsAre(HasSubstr("the device is gone")));
}

TEST_F(EngineLoopTest, ShutdownOfAnIdleEngineRefusesRequests) {
  Start();
  loop_->Shutdown(TimePoint::max());
  const absl::Status refused = loop_->Submit(Ask({1}, 1)).status();
  EXPECT_EQ(refused, absl::UnavailableError("the engine is shutting down"));
}

// Shuts the loop down on a thread of its own; returns when it has begun to refuse requests.
std::unique_ptr<Thread> BeginShutdown(EngineLoop& loop, TimePoint deadline) {
  auto thread =
      std::make_unique<Thread>("shutdown", [&loop, deadline] { loop.Shutdown(deadline); });
  // Nothing tells that a call has got this far but what it does.
  while (loop.Submit(Ask({1}, 1)).status().code() != absl::StatusCode::kUnavailable) {
    std::this_thread::yield();
  }
  return thread;
}

TEST_F(EngineLoopTest, ShutdownLetsStreamsEnd) {
  Start();
  StreamReader reader(Submit(Ask({1}, 3)));
  gate_.AwaitStep();
  const auto shutdown = BeginShutdown(*loop_, TimePoint::max());
  gate_.Open();
  EXPECT_TRUE(reader.AwaitCompletion().status.ok());
  EXPECT_EQ(TokenIds(reader.tokens()), Answer({1}, 3));
}

TEST_F(EngineLoopTest, ShutdownCutsAtItsDeadlineWhatStillRuns) {
  Start();
  StreamReader reader(Submit(Ask({1}, 100)));
  gate_.AwaitStep();
  const auto shutdown = BeginShutdown(*loop_, clock_.Now() + seconds(10));
  clock_.Advance(seconds(9));
  gate_.Release();
  reader.AwaitTokens(1);
  gate_.AwaitStep();
  clock_.Advance(seconds(1));
  gate_.Release();
  const Completion& completion = reader.AwaitCompletion();
  EXPECT_EQ(completion.status, absl::UnavailableError("the engine is shutting down"));
  EXPECT_EQ(completion.completion_tokens, 2u);
}

TEST_F(EngineLoopTest, ALaterDeadlineDoesNotLengthenAShutdown) {
  Start();
  StreamReader reader(Submit(Ask({1}, 100)));
  gate_.AwaitStep();
  const auto shutdown = BeginShutdown(*loop_, clock_.Now());
  Thread opener("opener", [this] { gate_.Open(); });
  loop_->Shutdown(TimePoint::max());
  EXPECT_EQ(reader.AwaitCompletion().status.code(), absl::StatusCode::kUnavailable);
}

TEST_F(EngineLoopTest, EndsItsStreamsBeforeItIsGone) {
  Start();
  const std::shared_ptr<ResponseStream> stream = Submit(Ask({1}, 100));
  gate_.AwaitStep();
  Thread opener("opener", [this] { gate_.Open(); });
  loop_.reset();
  EXPECT_TRUE(stream->Take().completion.has_value());
}

TEST_F(EngineLoopTest, TellsItsLoad) {
  const TimePoint start = clock_.Now();
  Start({.max_batch_tokens = 16, .max_running = 2, .max_queued = 4});
  EXPECT_EQ(loop_->load().kv_blocks_total, 1024u);
  EXPECT_EQ(loop_->load().last_step, start);

  // An engine that gets work after a long rest has not been stuck.
  clock_.Advance(seconds(60));
  StreamReader first(Submit(Ask({1}, 100)));
  gate_.AwaitStep();
  EXPECT_EQ(loop_->load().last_step, start + seconds(60));
  EXPECT_EQ(loop_->load().running, 1u);

  StreamReader second(Submit(Ask({2}, 100)));
  StreamReader third(Submit(Ask({3}, 100)));
  EXPECT_EQ(loop_->load().waiting, 2u);
  clock_.Advance(seconds(5));
  gate_.Release();
  gate_.AwaitStep();
  EXPECT_EQ(loop_->load().last_step, start + seconds(65));
  EXPECT_EQ(loop_->load().running, 2u);
  EXPECT_EQ(loop_->load().waiting, 1u);
  EXPECT_EQ(loop_->load().kv_blocks_used, 2u);
  for (StreamReader* reader : {&first, &second, &third}) reader->stream().Cancel();
  gate_.Open();
  for (StreamReader* reader : {&first, &second, &third}) reader->AwaitCompletion();
  EXPECT_EQ(loop_->load().running + loop_->load().waiting, 0u);
}

TEST_F(EngineLoopTest, SumsUpWhatEachRequestNeededOfTheExperts) {
  Start({.max_batch_tokens = 2, .max_running = 2, .max_queued = 4});
  StreamReader whole(Submit(Ask({1, 2, 3}, 3)));
  gate_.AwaitStep();
  gate_.Release();  // its prompt takes the first step and half of the second
  StreamReader cancelled(Submit(Ask({1}, 100)));
  gate_.Release(3);
  cancelled.AwaitTokens(2);
  cancelled.stream().Cancel();
  gate_.Open();
  const Completion& to_its_end = whole.AwaitCompletion();
  EXPECT_TRUE(to_its_end.status.ok());
  EXPECT_EQ(to_its_end.expert_usage, runner_->UsageOf(0));
  const Completion& cut = cancelled.AwaitCompletion();
  EXPECT_EQ(cut.status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(cut.expert_usage, runner_->UsageOf(1));
  EXPECT_GT(cut.expert_usage.misses, 0u);
}

TEST_F(EngineLoopTest, CountsWhatItsReadersGot) {
  FakeRunner::Options options;
  options.before_step = [this](const StepPlan&) {
    clock_.Advance(seconds(1));
    return absl::OkStatus();
  };
  Start(std::move(options));
  gate_.Open();
  StreamReader reader(Submit(Ask({1, 2, 3}, 4)));
  reader.AwaitCompletion();
  const RecordedStats stats = Stats();
  EXPECT_EQ(stats.value("finished_total{reason=\"length\"}"), 1);
  EXPECT_EQ(stats.value("prompt_tokens_total{source=\"computed\"}"), 3);
  EXPECT_EQ(stats.count("time_to_first_token_seconds"), 1u);
  EXPECT_EQ(stats.value("engine_steps_total{phase=\"prefill\"}"), 1);
  EXPECT_EQ(stats.value("engine_steps_total{phase=\"decode\"}"), 3);
  EXPECT_DOUBLE_EQ(stats.sum("engine_step_seconds{phase=\"decode\"}"), 3);
  EXPECT_DOUBLE_EQ(stats.sum("time_to_first_token_seconds"), 1);
  EXPECT_EQ(stats.count("inter_token_latency_seconds"), 3u);
  EXPECT_EQ(stats.sum("batch_tokens"), 6);
  EXPECT_EQ(stats.value("fake_runner_steps_total"), 4);
}

}  // namespace
}  // namespace pregate
