#include "core/engine/scheduler.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/fake_clock.h"
#include "tests/support/fake_runner.h"
#include "tests/support/stream_reader.h"

namespace pregate {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

using std::chrono::seconds;

Request Until(TimePoint deadline) {
  Request request;
  request.deadline = deadline;
  return request;
}

Request Of(const std::string& client, int32_t priority = 0) {
  Request request;
  request.client = client;
  request.priority = priority;
  return request;
}

class SchedulerTest : public ::testing::Test {
 protected:
  static constexpr uint32_t kBlockSize = 4;

  void Start(uint32_t max_batch_tokens, uint32_t max_running, uint32_t num_kv_blocks) {
    FakeRunner::Options options;
    options.limits.kv_block_size = kBlockSize;
    options.limits.num_kv_blocks = num_kv_blocks;
    runner_.emplace(std::move(options));
    scheduler_.emplace(Scheduler::Limits{.max_batch_tokens = max_batch_tokens,
                                         .max_running = max_running,
                                         .kv_block_size = kBlockSize,
                                         .num_kv_blocks = num_kv_blocks},
                       stats_);
  }

  // Adds the next sequence, otherwise as `request` is: ids are 0, 1, 2 … Unless it
  // has a prompt, this is `prompt_tokens` times its id.
  std::shared_ptr<ResponseStream> Add(uint32_t prompt_tokens,
                                      uint32_t max_tokens,
                                      Request request = {}) {
    if (request.prompt_token_ids.empty()) {
      request.prompt_token_ids.assign(prompt_tokens, static_cast<uint32_t>(next_id_));
    }
    request.stopping.max_tokens = max_tokens;
    auto stream = std::make_shared<ResponseStream>();
    scheduler_->Add(
        std::make_unique<Sequence>(next_id_++, std::move(request), stream, clock_.Now()));
    return stream;
  }

  // Plans and runs a step; what it held, as "id:tokens" with a * where a token was drawn.
  std::vector<std::string> Step() {
    const StepPlan& plan = scheduler_->Plan(clock_.Now());
    std::vector<std::string> shape;
    for (const SequenceStep& step : plan.sequences) {
      shape.push_back(absl::StrCat(
          step.sequence_id, ":", step.token_ids.size(), step.sampling != nullptr ? "*" : ""));
    }
    if (plan.sequences.empty()) return shape;
    absl::StatusOr<StepResult> result = runner_->Run(plan);
    clock_.Advance(step_time_);
    EXPECT_TRUE(result.ok()) << result.status();
    if (result.ok()) scheduler_->Apply(*std::move(result), clock_.Now());
    return shape;
  }

  // The statuses of those that have ended since the last call.
  std::vector<absl::StatusCode> Ended() {
    std::vector<absl::StatusCode> codes;
    for (const Scheduler::Ended& ended : scheduler_->TakeEnded()) {
      codes.push_back(ended.completion.status.code());
    }
    return codes;
  }

  FakeClock clock_;
  Duration step_time_ = {};
  EngineStats stats_;
  std::optional<FakeRunner> runner_;
  std::optional<Scheduler> scheduler_;
  uint64_t next_id_ = 0;
};

TEST_F(SchedulerTest, HasNothingToDoAtFirst) {
  Start(8, 4, 16);
  EXPECT_TRUE(scheduler_->empty());
  EXPECT_EQ(scheduler_->num_places(), 4u);
  EXPECT_THAT(Step(), IsEmpty());
}

TEST_F(SchedulerTest, RunsASequenceToItsLength) {
  Start(8, 4, 16);
  Add(3, 2);
  EXPECT_THAT(Step(), ElementsAre("0:3*"));
  EXPECT_THAT(Ended(), IsEmpty());
  EXPECT_THAT(Step(), ElementsAre("0:1*"));
  EXPECT_THAT(Ended(), ElementsAre(absl::StatusCode::kOk));
  EXPECT_TRUE(scheduler_->empty());
  EXPECT_EQ(scheduler_->blocks().num_used(), 0u);
}

TEST_F(SchedulerTest, CutsPromptsToTheBudgetInOrder) {
  Start(8, 4, 64);
  Add(10, 3);
  Add(3, 3);
  EXPECT_THAT(Step(), ElementsAre("0:8"));
  EXPECT_THAT(Step(), ElementsAre("0:2*", "1:3*"));
  EXPECT_THAT(Step(), ElementsAre("0:1*", "1:1*"));
}

TEST_F(SchedulerTest, PlansGeneratingSequencesBeforePrompts) {
  Start(4, 4, 64);
  Add(1, 9);
  EXPECT_THAT(Step(), ElementsAre("0:1*"));
  Add(7, 9);
  Add(1, 9);
  EXPECT_THAT(Step(), ElementsAre("0:1*", "1:3"));
  EXPECT_THAT(Step(), ElementsAre("0:1*", "1:3"));
  EXPECT_THAT(Step(), ElementsAre("0:1*", "1:1*", "2:1*"));
  EXPECT_THAT(Step(), ElementsAre("0:1*", "1:1*", "2:1*"));
}

TEST_F(SchedulerTest, RunsNoMoreThanMaxRunningFirstComeFirstServed) {
  Start(8, 2, 64);
  Add(1, 2);
  Add(1, 1);
  Add(1, 1);
  Add(1, 1);
  EXPECT_THAT(Step(), ElementsAre("0:1*", "1:1*"));
  EXPECT_EQ(scheduler_->num_running(), 1u);
  EXPECT_EQ(scheduler_->num_waiting(), 2u);
  EXPECT_THAT(Step(), ElementsAre("0:1*", "2:1*"));
  EXPECT_THAT(Step(), ElementsAre("3:1*"));
  EXPECT_TRUE(scheduler_->empty());
}

TEST_F(SchedulerTest, RunsNoMoreThanAStepHasTokens) {
  Start(2, 64, 64);
  Add(1, 9);
  Add(1, 9);
  Add(1, 9);
  EXPECT_THAT(Step(), ElementsAre("0:1*", "1:1*"));
  EXPECT_THAT(Step(), ElementsAre("0:1*", "1:1*"));
  EXPECT_EQ(scheduler_->num_waiting(), 1u);
}

TEST_F(SchedulerTest, AdmitsNobodyForWhomAStepHasNoTokens) {
  Start(4, 4, 64);
  Add(6, 2);
  Add(3, 2);
  EXPECT_THAT(Step(), ElementsAre("0:4"));
  EXPECT_EQ(scheduler_->num_running(), 1u);
  EXPECT_EQ(scheduler_->num_places(), 3u);
  // So nobody is in the way of who comes later and goes first.
  Add(3, 2, Of("", 1));
  EXPECT_THAT(Step(), ElementsAre("2:3*", "0:1"));
  EXPECT_THAT(Step(), ElementsAre("2:1*", "0:1*", "1:2"));
}

TEST_F(SchedulerTest, ClientsShareThePlaces) {
  Start(8, 1, 64);
  for (int i = 0; i < 3; ++i) Add(1, 1, Of("flood"));
  EXPECT_THAT(Step(), ElementsAre("0:1*"));
  Add(1, 1, Of("guest"));
  EXPECT_THAT(Step(), ElementsAre("3:1*"));
  EXPECT_THAT(Step(), ElementsAre("1:1*"));
}

TEST_F(SchedulerTest, WaitsForBlocksWithoutLettingASmallerOnePass) {
  Start(64, 8, 4);
  Add(9, 1);  // 3 blocks
  Add(8, 1);  // 2
  Add(1, 1);  // 1, which is free
  scheduler_->Plan(clock_.Now());
  EXPECT_EQ(scheduler_->num_places(), 0u);
  EXPECT_THAT(Step(), ElementsAre("0:9*"));
  EXPECT_THAT(Step(), ElementsAre("1:8*", "2:1*"));
}

TEST_F(SchedulerTest, TakesBlocksAsTokensCome) {
  Start(64, 8, 4);
  Add(4, 6);
  EXPECT_THAT(Step(), ElementsAre("0:4*"));
  EXPECT_EQ(scheduler_->blocks().num_used(), 1u);
  for (int i = 0; i < 4; ++i) {
    EXPECT_THAT(Step(), ElementsAre("0:1*"));
    EXPECT_EQ(scheduler_->blocks().num_used(), 2u);
  }
  // The last token is not fed back: no third block is taken for it.
  EXPECT_THAT(Step(), ElementsAre("0:1*"));
  EXPECT_EQ(scheduler_->blocks().num_used(), 0u);
}

TEST_F(SchedulerTest, StopsTheLastInRankWhenBlocksRunOutAndComputesItAgain) {
  Start(64, 8, 4);
  const auto first = Add(4, 10);
  const auto second = Add(4, 6);
  EXPECT_THAT(Step(), ElementsAre("0:4*", "1:4*"));
  for (int i = 0; i < 4; ++i) EXPECT_THAT(Step(), ElementsAre("0:1*", "1:1*"));
  EXPECT_EQ(scheduler_->blocks().num_used(), 4u);
  // Both want a third block.
  EXPECT_THAT(Step(), ElementsAre("0:1*"));
  EXPECT_EQ(scheduler_->blocks().num_used(), 3u);
  EXPECT_EQ(scheduler_->num_running(), 1u);
  EXPECT_EQ(scheduler_->num_waiting(), 1u);
  EXPECT_EQ(scheduler_->num_places(), 0u);
  for (int i = 0; i < 4; ++i) EXPECT_THAT(Step(), ElementsAre("0:1*"));
  EXPECT_THAT(Ended(), ElementsAre(absl::StatusCode::kOk));
  // All of its blocks went to the other one.
  EXPECT_THAT(Step(), ElementsAre("1:4"));
  EXPECT_THAT(Step(), ElementsAre("1:5*"));
  EXPECT_THAT(Ended(), ElementsAre(absl::StatusCode::kOk));
  EXPECT_EQ(TokenIds(first->Take().tokens),
            TokenIds(runner_->Answer({0, 0, 0, 0}, Sampling(), 10)));
  EXPECT_EQ(TokenIds(second->Take().tokens),
            TokenIds(runner_->Answer({1, 1, 1, 1}, Sampling(), 6)));
}

TEST_F(SchedulerTest, StopsTheLowestPriorityFirst) {
  Start(64, 8, 4);
  Add(4, 6, Of("", -1));
  Add(4, 6, Of("", 0));
  EXPECT_THAT(Step(), ElementsAre("1:4*", "0:4*"));
  for (int i = 0; i < 4; ++i) EXPECT_THAT(Step(), ElementsAre("1:1*", "0:1*"));
  EXPECT_THAT(Step(), ElementsAre("1:1*"));
}

TEST_F(SchedulerTest, LetsAStoppedSequenceGoBeforeNewOnes) {
  Start(64, 8, 4);
  Add(4, 7);
  Add(4, 6);
  Step();
  for (int i = 0; i < 5; ++i) Step();
  EXPECT_EQ(scheduler_->num_waiting(), 1u);
  Add(1, 1);  // would fit now
  EXPECT_THAT(Step(), ElementsAre("0:1*"));
  EXPECT_EQ(scheduler_->num_places(), 0u);
  EXPECT_THAT(Step(), ElementsAre("1:5*"));
  EXPECT_THAT(Step(), ElementsAre("2:1*"));
}

TEST_F(SchedulerTest, LeavesABlockFreeForEachSequenceThatANewOneJoins) {
  Start(64, 8, 4);
  Add(4, 3);
  EXPECT_THAT(Step(), ElementsAre("0:4*"));
  Add(9, 1);  // 3 blocks, and 3 are free
  EXPECT_THAT(Step(), ElementsAre("0:1*"));
  EXPECT_EQ(scheduler_->num_places(), 0u);
  EXPECT_THAT(Step(), ElementsAre("0:1*"));
  EXPECT_THAT(Step(), ElementsAre("1:9*"));
}

TEST_F(SchedulerTest, BeginsBehindWhatAnotherSequenceHasComputed) {
  Start(64, 8, 16);
  Request request;
  request.prompt_token_ids = {7, 7, 7, 7, 8, 8, 8, 8, 9};
  const auto first = Add(0, 6, request);
  EXPECT_THAT(Step(), ElementsAre("0:9*"));
  EXPECT_EQ(scheduler_->blocks().num_used(), 3u);
  request.prompt_token_ids.push_back(3);
  const auto second = Add(0, 1, request);
  EXPECT_THAT(Step(), ElementsAre("0:1*", "1:2*"));
  EXPECT_EQ(scheduler_->TakeEnded()[0].completion.cached_prompt_tokens, 8u);
  EXPECT_EQ(TokenIds(second->Take().tokens),
            TokenIds(runner_->Answer(request.prompt_token_ids, Sampling(), 1)));
  for (int i = 0; i < 4; ++i) Step();
  EXPECT_TRUE(scheduler_->empty());
  EXPECT_EQ(scheduler_->blocks().num_used(), 0u);
  EXPECT_EQ(scheduler_->blocks().num_cached(), 3u);

  // The next turn of a conversation: the answer is not computed again either.
  request.prompt_token_ids.pop_back();
  for (const GeneratedToken& token : first->Take().tokens) {
    request.prompt_token_ids.push_back(token.token_id);
  }
  Add(0, 1, request);
  EXPECT_THAT(Step(), ElementsAre("2:3*"));
}

TEST_F(SchedulerTest, EndsAStoppedSequenceThatIsCancelled) {
  Start(64, 8, 4);
  Add(4, 9);
  const auto stopped = Add(4, 6);
  for (int i = 0; i < 6; ++i) Step();
  EXPECT_EQ(scheduler_->num_waiting(), 1u);
  stopped->Cancel();
  EXPECT_THAT(Step(), ElementsAre("0:1*"));
  EXPECT_THAT(Ended(), ElementsAre(absl::StatusCode::kCancelled));
  EXPECT_EQ(scheduler_->num_waiting(), 0u);
}

TEST_F(SchedulerTest, DropsACancelledSequenceInTheMiddleOfItsPrompt) {
  Start(4, 1, 8);
  const auto stream = Add(20, 5);
  Add(1, 1);
  EXPECT_THAT(Step(), ElementsAre("0:4"));
  EXPECT_EQ(scheduler_->blocks().num_used(), 5u);
  stream->Cancel();
  EXPECT_THAT(Step(), ElementsAre("1:1*"));
  EXPECT_THAT(Ended(), ElementsAre(absl::StatusCode::kCancelled, absl::StatusCode::kOk));
  EXPECT_EQ(scheduler_->blocks().num_used(), 0u);
}

TEST_F(SchedulerTest, NeverRunsWhatHasExpiredOrBeenCancelledInTheQueue) {
  Start(4, 1, 8);
  Add(1, 2);
  Add(1, 1, Until(clock_.Now() + seconds(5)));
  const auto cancelled = Add(1, 1);
  EXPECT_THAT(Step(), ElementsAre("0:1*"));
  clock_.Advance(seconds(5));
  cancelled->Cancel();
  EXPECT_THAT(Step(), ElementsAre("0:1*"));
  EXPECT_THAT(Ended(),
              ElementsAre(absl::StatusCode::kDeadlineExceeded,
                          absl::StatusCode::kCancelled,
                          absl::StatusCode::kOk));
  EXPECT_TRUE(scheduler_->empty());
}

TEST_F(SchedulerTest, DropsBeforeItsPrefillWhatCannotMakeItsDeadline) {
  Start(4, 1, 64);
  step_time_ = seconds(2);
  Add(4, 3);
  Add(9, 1, Until(clock_.Now() + seconds(9)));  // takes three steps
  Add(9, 1, Until(clock_.Now() + seconds(60)));
  EXPECT_THAT(Step(), ElementsAre("0:4*"));
  EXPECT_THAT(Step(), ElementsAre("0:1*"));
  EXPECT_EQ(scheduler_->num_waiting(), 2u);
  EXPECT_THAT(Step(), ElementsAre("0:1*"));
  const std::vector<Scheduler::Ended> ended = scheduler_->TakeEnded();
  ASSERT_EQ(ended.size(), 2u);
  EXPECT_EQ(
      ended[0].completion.status,
      absl::DeadlineExceededError("the request's deadline cannot be met: a prompt of 9 tokens "
                                  "takes at least 6 s to the first token, and 5 s are left"));
  EXPECT_TRUE(ended[1].completion.status.ok());
  EXPECT_THAT(Step(), ElementsAre("2:4"));
}

TEST_F(SchedulerTest, NeverDropsForAnEstimateWhatHasBegun) {
  Start(4, 1, 64);
  step_time_ = seconds(2);
  Add(8, 1, Until(clock_.Now() + seconds(3)));
  EXPECT_THAT(Step(), ElementsAre("0:4"));
  EXPECT_THAT(Step(), ElementsAre("0:4*"));
  EXPECT_THAT(Ended(), ElementsAre(absl::StatusCode::kDeadlineExceeded));
}

TEST_F(SchedulerTest, StopsARunningSequenceAtItsDeadline) {
  Start(4, 4, 8);
  Add(1, 9, Until(clock_.Now() + seconds(5)));
  Add(1, 9);
  EXPECT_THAT(Step(), ElementsAre("0:1*", "1:1*"));
  clock_.Advance(seconds(5));
  EXPECT_THAT(Step(), ElementsAre("1:1*"));
  EXPECT_THAT(Ended(), ElementsAre(absl::StatusCode::kDeadlineExceeded));
}

TEST_F(SchedulerTest, FailsOneSequenceWithoutTheOthers) {
  Start(4, 4, 8);
  const auto failed = Add(1, 9);
  const auto other = Add(1, 2);
  const StepPlan& plan = scheduler_->Plan(clock_.Now());
  ASSERT_EQ(plan.sequences.size(), 2u);
  StepResult result;
  result.sequences.resize(2);
  result.sequences[0].status = absl::InternalError("logits are NaN");
  result.sequences[1].token.emplace().token_id = 8;
  scheduler_->Apply(std::move(result), clock_.Now());
  EXPECT_THAT(Ended(), ElementsAre(absl::StatusCode::kInternal));
  EXPECT_THAT(failed->Take().tokens, IsEmpty());
  EXPECT_THAT(TokenIds(other->Take().tokens), ElementsAre(8));
  EXPECT_EQ(scheduler_->num_running(), 1u);
}

TEST_F(SchedulerTest, AFailedStepFailsItsSequencesAlone) {
  Start(4, 4, 8);
  Add(8, 1);
  Add(3, 1);
  const StepPlan& plan = scheduler_->Plan(clock_.Now());
  ASSERT_EQ(plan.sequences.size(), 1u);
  scheduler_->FailStep(absl::ResourceExhaustedError("no memory"), clock_.Now());
  EXPECT_THAT(Ended(), ElementsAre(absl::StatusCode::kResourceExhausted));
  EXPECT_THAT(Step(), ElementsAre("1:3*"));
  EXPECT_THAT(Ended(), ElementsAre(absl::StatusCode::kOk));
}

TEST_F(SchedulerTest, EndsAllAtOnce) {
  Start(4, 1, 8);
  Add(1, 9);
  Add(1, 9);
  EXPECT_THAT(Step(), ElementsAre("0:1*"));
  scheduler_->EndAll(absl::UnavailableError("bye"), clock_.Now());
  EXPECT_THAT(Ended(), ElementsAre(absl::StatusCode::kUnavailable, absl::StatusCode::kUnavailable));
  EXPECT_TRUE(scheduler_->empty());
  EXPECT_EQ(scheduler_->blocks().num_used(), 0u);
}

TEST_F(SchedulerTest, CountsTheQueueUpToTheFirstStepWithTokensOfTheSequence) {
  Start(4, 2, 16);
  Add(8, 1);
  Add(1, 1);
  Step();
  clock_.Advance(seconds(3));
  Step();
  clock_.Advance(seconds(3));
  Step();
  const std::vector<Scheduler::Ended> ended = scheduler_->TakeEnded();
  ASSERT_EQ(ended.size(), 2u);
  EXPECT_DOUBLE_EQ(ended[0].completion.queue_seconds, 0);
  EXPECT_DOUBLE_EQ(ended[1].completion.queue_seconds, 6);
}

}  // namespace
}  // namespace pregate
