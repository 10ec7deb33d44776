#include "core/engine/sequence.h"

#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/fake_clock.h"
#include "tests/support/recorded_stats.h"
#include "tests/support/stream_reader.h"

namespace pregate {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

using std::chrono::seconds;

class SequenceTest : public ::testing::Test {
 protected:
  Sequence Make(std::vector<uint32_t> prompt,
                Stopping stopping,
                std::optional<TimePoint> deadline = std::nullopt) {
    Request request;
    request.prompt_token_ids = std::move(prompt);
    request.stopping = std::move(stopping);
    request.deadline = deadline;
    Sequence sequence(3, std::move(request), stream_, clock_.Now());
    sequence.Admit(Lease(4), 0, {clock_.Now(), 0}, stats_);
    return sequence;
  }

  // Runs a step of `num_tokens` that takes `duration` and draws `token_id`, if it draws one.
  std::optional<Ending> Step(Sequence& sequence,
                             uint32_t num_tokens,
                             uint32_t token_id,
                             Duration duration = seconds(0)) {
    const SequenceStep step = sequence.Plan(num_tokens, clock_.Now());
    clock_.Advance(duration);
    SequenceResult result;
    if (step.sampling != nullptr) result.token.emplace().token_id = token_id;
    return sequence.Apply(step, std::move(result), clock_.Now(), stats_);
  }

  BlockLease Lease(uint32_t blocks) {
    return *pool_.Reserve(std::vector<uint32_t>(size_t{blocks} * 4), 0);
  }

  RecordedStats Stats() {
    RecordedStats recorded;
    stats_.Visit({.kv_blocks_total = 1}, recorded);
    return recorded;
  }

  FakeClock clock_;
  EngineStats stats_;
  BlockPool pool_{16, 4};
  std::shared_ptr<ResponseStream> stream_ = std::make_shared<ResponseStream>();
};

TEST_F(SequenceTest, PlansItsPromptInPiecesAndThenTokenByToken) {
  Sequence sequence = Make({10, 11, 12}, {.max_tokens = 3});
  EXPECT_EQ(sequence.max_positions(), 5u);
  EXPECT_FALSE(sequence.is_generating());
  EXPECT_EQ(sequence.num_ready(), 3u);

  SequenceStep step = sequence.Plan(2, clock_.Now());
  EXPECT_EQ(step.sequence_id, 3u);
  EXPECT_THAT(step.token_ids, ElementsAre(10, 11));
  EXPECT_EQ(step.first_position, 0u);
  EXPECT_THAT(step.blocks, ElementsAre(0, 1, 2, 3));
  EXPECT_TRUE(step.is_prompt);
  EXPECT_EQ(step.sampling, nullptr);
  EXPECT_FALSE(sequence.Apply(step, {}, clock_.Now(), stats_).has_value());

  step = sequence.Plan(1, clock_.Now());
  EXPECT_THAT(step.token_ids, ElementsAre(12));
  EXPECT_EQ(step.first_position, 2u);
  EXPECT_TRUE(step.is_prompt);
  EXPECT_NE(step.sampling, nullptr);
  SequenceResult result;
  result.token.emplace().token_id = 20;
  EXPECT_FALSE(sequence.Apply(step, std::move(result), clock_.Now(), stats_).has_value());

  EXPECT_TRUE(sequence.is_generating());
  EXPECT_EQ(sequence.num_ready(), 1u);
  step = sequence.Plan(1, clock_.Now());
  EXPECT_THAT(step.token_ids, ElementsAre(20));
  EXPECT_EQ(step.first_position, 3u);
  EXPECT_FALSE(step.is_prompt);
  EXPECT_NE(step.sampling, nullptr);
}

TEST_F(SequenceTest, IsComputedAgainAndGoesOnWhereItWas) {
  Sequence sequence = Make({10, 11, 12}, {.max_tokens = 9});
  Step(sequence, 3, 20);
  Step(sequence, 1, 21);
  Step(sequence, 1, 22);
  const Rank rank = sequence.rank();
  sequence.Preempt();
  EXPECT_EQ(pool_.num_used(), 0u);
  sequence.Admit(Lease(2), 0, {clock_.Now() + seconds(9), 9}, stats_);
  EXPECT_EQ(sequence.rank(), rank);
  EXPECT_FALSE(sequence.is_generating());

  // First what was given, then what was generated; nothing that is known is drawn again.
  EXPECT_EQ(sequence.num_ready(), 3u);
  SequenceStep step = sequence.Plan(3, clock_.Now());
  EXPECT_THAT(step.token_ids, ElementsAre(10, 11, 12));
  EXPECT_EQ(step.first_position, 0u);
  EXPECT_TRUE(step.is_prompt);
  EXPECT_EQ(step.sampling, nullptr);
  EXPECT_FALSE(sequence.Apply(step, {}, clock_.Now(), stats_).has_value());
  EXPECT_EQ(sequence.num_ready(), 3u);
  step = sequence.Plan(1, clock_.Now());
  EXPECT_THAT(step.token_ids, ElementsAre(20));
  EXPECT_FALSE(step.is_prompt);
  EXPECT_EQ(step.sampling, nullptr);
  EXPECT_FALSE(sequence.Apply(step, {}, clock_.Now(), stats_).has_value());
  step = sequence.Plan(2, clock_.Now());
  EXPECT_THAT(step.token_ids, ElementsAre(21, 22));
  EXPECT_EQ(step.first_position, 4u);
  EXPECT_NE(step.sampling, nullptr);
  SequenceResult result;
  result.token.emplace().token_id = 23;
  sequence.Apply(step, std::move(result), clock_.Now(), stats_);

  EXPECT_THAT(TokenIds(stream_->Take().tokens), ElementsAre(20, 21, 22, 23));
  EXPECT_EQ(Stats().value("prompt_tokens_total{source=\"computed\"}"), 3);
}

TEST_F(SequenceTest, BeginsBehindWhatOthersHaveComputed) {
  Sequence sequence = Make({10, 11, 12, 13, 14, 15}, {.max_tokens = 1});
  sequence.Preempt();
  sequence.Admit(Lease(2), 4, {clock_.Now(), 0}, stats_);
  const SequenceStep step = sequence.Plan(2, clock_.Now());
  EXPECT_THAT(step.token_ids, ElementsAre(14, 15));
  EXPECT_EQ(step.first_position, 4u);
  EXPECT_TRUE(step.is_prompt);
  SequenceResult result;
  result.token.emplace().token_id = 20;
  std::optional<Ending> ending = sequence.Apply(step, std::move(result), clock_.Now(), stats_);
  ASSERT_TRUE(ending.has_value());
  const Completion completion = sequence.Complete(*std::move(ending), clock_.Now(), stats_);
  EXPECT_EQ(completion.prompt_tokens, 6u);
  EXPECT_EQ(completion.cached_prompt_tokens, 4u);
  EXPECT_EQ(Stats().value("prompt_tokens_total{source=\"computed\"}"), 2);
  EXPECT_EQ(Stats().value("prompt_tokens_total{source=\"prefix_cache\"}"), 4);
}

TEST_F(SequenceTest, EndsWithLengthAtMaxTokens) {
  Sequence sequence = Make({1}, {.max_tokens = 2});
  EXPECT_FALSE(Step(sequence, 1, 5).has_value());
  const std::optional<Ending> ending = Step(sequence, 1, 6);
  ASSERT_TRUE(ending.has_value());
  EXPECT_TRUE(ending->status.ok());
  EXPECT_EQ(ending->reason, FinishReason::kLength);
  EXPECT_THAT(TokenIds(stream_->Take().tokens), ElementsAre(5, 6));
}

TEST_F(SequenceTest, EndsAtAStopTokenAndKeepsItBack) {
  Sequence sequence = Make({1}, {.max_tokens = 3, .stop_token_ids = {9, 7, 8}});
  EXPECT_FALSE(Step(sequence, 1, 5).has_value());
  std::optional<Ending> ending = Step(sequence, 1, 7);
  ASSERT_TRUE(ending.has_value());
  EXPECT_TRUE(ending->status.ok());
  EXPECT_EQ(ending->reason, FinishReason::kStop);
  EXPECT_EQ(ending->stop_token_id, 7u);
  EXPECT_THAT(TokenIds(stream_->Take().tokens), ElementsAre(5));
  EXPECT_EQ(sequence.Complete(*std::move(ending), clock_.Now(), stats_).completion_tokens, 1u);
}

TEST_F(SequenceTest, AStopTokenInThePlaceOfTheLastTokenIsAStop) {
  Sequence sequence = Make({1}, {.max_tokens = 1, .stop_token_ids = {7}});
  EXPECT_EQ(Step(sequence, 1, 7)->reason, FinishReason::kStop);
}

TEST_F(SequenceTest, NeitherDeliversNorCountsTokensBehindAStopOfTheReader) {
  Sequence sequence = Make({1}, {.max_tokens = 3});
  Step(sequence, 1, 5);
  stream_->Stop();
  std::optional<Ending> ending = Step(sequence, 1, 6);
  ASSERT_TRUE(ending.has_value());
  EXPECT_TRUE(ending->status.ok());
  EXPECT_EQ(ending->reason, FinishReason::kStop);
  EXPECT_FALSE(ending->stop_token_id.has_value());
  EXPECT_EQ(sequence.Complete(*std::move(ending), clock_.Now(), stats_).completion_tokens, 1u);
  EXPECT_THAT(TokenIds(stream_->Take().tokens), ElementsAre(5));
  EXPECT_EQ(Stats().count("time_to_first_token_seconds"), 1u);
  EXPECT_EQ(Stats().count("inter_token_latency_seconds"), 0u);
}

TEST_F(SequenceTest, EndsWithCancelledWhenTheReaderCancels) {
  Sequence sequence = Make({1, 2}, {.max_tokens = 1});
  EXPECT_FALSE(sequence.EndedOutside(clock_.Now()).has_value());
  stream_->Cancel();
  EXPECT_EQ(sequence.EndedOutside(clock_.Now())->status.code(), absl::StatusCode::kCancelled);
  // In the middle of a prompt and instead of LENGTH at its end.
  EXPECT_EQ(Step(sequence, 1, 0)->status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(Step(sequence, 1, 5)->status.code(), absl::StatusCode::kCancelled);
}

TEST_F(SequenceTest, EndsWithDeadlineExceededAtItsDeadlineAndNeverWithLength) {
  Sequence sequence = Make({1}, {.max_tokens = 1}, clock_.Now() + seconds(2));
  EXPECT_FALSE(sequence.EndedOutside(clock_.Now() + seconds(1)).has_value());
  const std::optional<Ending> ending = Step(sequence, 1, 5, seconds(2));
  ASSERT_TRUE(ending.has_value());
  EXPECT_EQ(ending->status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(stream_->Take().tokens, IsEmpty());
}

TEST_F(SequenceTest, ADeadlineExplainsACancelButNotAStop) {
  Sequence sequence = Make({1}, {.max_tokens = 1}, clock_.Now());
  stream_->Cancel();
  EXPECT_EQ(sequence.EndedOutside(clock_.Now())->status.code(),
            absl::StatusCode::kDeadlineExceeded);

  stream_ = std::make_shared<ResponseStream>();
  Sequence stopped = Make({1}, {.max_tokens = 1}, clock_.Now());
  stream_->Stop();
  EXPECT_TRUE(stopped.EndedOutside(clock_.Now())->status.ok());
}

TEST_F(SequenceTest, EndsWithTheStatusOfItsResult) {
  Sequence sequence = Make({1}, {.max_tokens = 2});
  const SequenceStep step = sequence.Plan(1, clock_.Now());
  const std::optional<Ending> ending =
      sequence.Apply(step, {.status = absl::InternalError("logits are NaN")}, clock_.Now(), stats_);
  ASSERT_TRUE(ending.has_value());
  EXPECT_EQ(ending->status, absl::InternalError("logits are NaN"));
}

TEST_F(SequenceTest, SumsUpItsStepsExpertsTheFailedOneToo) {
  Sequence sequence = Make({1, 2}, {.max_tokens = 2});
  SequenceStep step = sequence.Plan(1, clock_.Now());
  SequenceResult result;
  result.expert_usage = {
      .hits = 8, .late_hits = 4, .misses = 2, .loaded_bytes = 200, .stall_seconds = 0.5};
  sequence.Apply(step, std::move(result), clock_.Now(), stats_);
  step = sequence.Plan(1, clock_.Now());
  result = {.status = absl::DataLossError("expert 0/1")};
  result.expert_usage = {
      .hits = 1, .late_hits = 2, .misses = 3, .loaded_bytes = 300, .stall_seconds = 0.25};
  std::optional<Ending> ending = sequence.Apply(step, std::move(result), clock_.Now(), stats_);
  ASSERT_TRUE(ending.has_value());
  const ExpertUsage expected = {
      .hits = 9, .late_hits = 6, .misses = 5, .loaded_bytes = 500, .stall_seconds = 0.75};
  EXPECT_EQ(sequence.Complete(*std::move(ending), clock_.Now(), stats_).expert_usage, expected);
}

TEST_F(SequenceTest, MeasuresQueuePrefillAndDecode) {
  Sequence sequence = Make({1, 2}, {.max_tokens = 3});
  clock_.Advance(seconds(5));
  Step(sequence, 1, 0, seconds(1));
  Step(sequence, 1, 7, seconds(2));
  Step(sequence, 1, 8, seconds(3));
  std::optional<Ending> ending = Step(sequence, 1, 9, seconds(4));
  const Completion completion = sequence.Complete(*std::move(ending), clock_.Now(), stats_);
  EXPECT_EQ(completion.prompt_tokens, 2u);
  EXPECT_EQ(completion.completion_tokens, 3u);
  EXPECT_DOUBLE_EQ(completion.queue_seconds, 5);
  EXPECT_DOUBLE_EQ(completion.prefill_seconds, 3);
  EXPECT_DOUBLE_EQ(completion.decode_seconds, 7);

  const RecordedStats stats = Stats();
  EXPECT_EQ(stats.value("prompt_tokens_total{source=\"computed\"}"), 2);
  EXPECT_DOUBLE_EQ(stats.sum("time_to_first_token_seconds"), 8);
  EXPECT_EQ(stats.count("inter_token_latency_seconds"), 2u);
  EXPECT_DOUBLE_EQ(stats.sum("inter_token_latency_seconds"), 7);
  EXPECT_DOUBLE_EQ(stats.sum("time_per_output_token_seconds"), 3.5);
  EXPECT_DOUBLE_EQ(stats.sum("request_duration_seconds"), 15);
}

TEST_F(SequenceTest, ThatNeverRanHasOnlyQueued) {
  Sequence sequence = Make({1, 2}, {.max_tokens = 3});
  clock_.Advance(seconds(4));
  const Completion completion =
      sequence.Complete({.status = absl::CancelledError("gone")}, clock_.Now(), stats_);
  EXPECT_DOUBLE_EQ(completion.queue_seconds, 4);
  EXPECT_EQ(completion.prefill_seconds, 0);
  EXPECT_EQ(completion.decode_seconds, 0);
  EXPECT_EQ(completion.completion_tokens, 0u);
}

}  // namespace
}  // namespace pregate
