#include "server/answer.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "tests/unit/text/tokenizer_files.h"

namespace pregate {
namespace {

constexpr uint32_t kHe = 256;
constexpr uint32_t kSpaceThe = 258;

class AnswerTest : public ::testing::Test {
 protected:
  Answer Make(std::vector<std::string> stop = {}) {
    return Answer(stream_, TextStream(*tokenizer_, {}, std::move(stop)));
  }
  void Push(std::vector<uint32_t> token_ids) {
    for (const uint32_t id : token_ids) stream_->Push({.token_id = id});
  }
  static std::vector<uint32_t> Ids(const v1::TokenDelta& delta) {
    return {delta.token_ids().begin(), delta.token_ids().end()};
  }

  const std::unique_ptr<Tokenizer> tokenizer_ = Load(ByteLevelTokenizer());
  const std::shared_ptr<ResponseStream> stream_ = std::make_shared<ResponseStream>();
};

TEST_F(AnswerTest, GathersWhatHasArrived) {
  Answer answer = Make();
  answer.Pull();
  EXPECT_FALSE(answer.TakeDelta().has_value());
  Push({kHe, kSpaceThe});
  answer.Pull();
  Push({kHe});
  answer.Pull();
  const std::optional<v1::TokenDelta> delta = answer.TakeDelta();
  ASSERT_TRUE(delta.has_value());
  EXPECT_EQ(Ids(*delta), (std::vector<uint32_t>{kHe, kSpaceThe, kHe}));
  EXPECT_EQ(delta->text(), "he thehe");
  EXPECT_FALSE(answer.TakeDelta().has_value());
  EXPECT_FALSE(answer.ended().has_value());
}

TEST_F(AnswerTest, EndsWithReasonAndUsage) {
  Answer answer = Make();
  Push({kHe});
  stream_->Finish(
      {.status = absl::OkStatus(),
       .reason = FinishReason::kLength,
       .prompt_tokens = 3,
       .cached_prompt_tokens = 2,
       .completion_tokens = 1,
       .queue_seconds = 1,
       .prefill_seconds = 2,
       .decode_seconds = 4,
       .expert_usage = {
           .hits = 5, .late_hits = 6, .misses = 7, .loaded_bytes = 8, .stall_seconds = 9}});
  answer.Pull();
  ASSERT_TRUE(answer.ended().has_value());
  EXPECT_TRUE(answer.ended()->ok());
  EXPECT_EQ(answer.finished().reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(answer.summary().usage().prompt_tokens(), 3u);
  EXPECT_EQ(answer.summary().usage().cached_prompt_tokens(), 2u);
  EXPECT_EQ(answer.summary().usage().completion_tokens(), 1u);
  EXPECT_EQ(answer.summary().timings().queue_seconds(), 1);
  EXPECT_EQ(answer.summary().timings().prefill_seconds(), 2);
  EXPECT_EQ(answer.summary().timings().decode_seconds(), 4);
  EXPECT_EQ(answer.summary().timings().expert_stall_seconds(), 9);
  EXPECT_EQ(answer.summary().expert().hits(), 5u);
  EXPECT_EQ(answer.summary().expert().late_hits(), 6u);
  EXPECT_EQ(answer.summary().expert().misses(), 7u);
  EXPECT_EQ(answer.summary().expert().loaded_bytes(), 8u);
}

TEST_F(AnswerTest, NamesTheStopTokenId) {
  Answer answer = Make();
  stream_->Finish(
      {.status = absl::OkStatus(), .reason = FinishReason::kStop, .stop_token_id = 259});
  answer.Pull();
  EXPECT_EQ(answer.finished().reason(), v1::FINISH_REASON_STOP);
  EXPECT_EQ(answer.finished().stop_token_id(), 259u);
}

TEST_F(AnswerTest, AStopStringEndsTheStreamAndDropsWhatFollows) {
  Answer answer = Make({"e t"});
  Push({kHe, kSpaceThe, kHe, kHe});
  EXPECT_EQ(answer.Pull(), 2u);
  EXPECT_EQ(stream_->reader_state(), ResponseStream::ReaderState::kStopped);
  const std::optional<v1::TokenDelta> delta = answer.TakeDelta();
  ASSERT_TRUE(delta.has_value());
  EXPECT_EQ(Ids(*delta), (std::vector<uint32_t>{kHe, kSpaceThe}));
  EXPECT_EQ(delta->text(), "h");
  // The engine had got to the length before it knew.
  stream_->Finish({.status = absl::OkStatus(), .reason = FinishReason::kLength});
  EXPECT_EQ(answer.Pull(), 0u);
  EXPECT_FALSE(answer.TakeDelta().has_value());
  EXPECT_EQ(answer.finished().reason(), v1::FINISH_REASON_STOP);
  EXPECT_EQ(answer.finished().stop(), "e t");
  EXPECT_EQ(answer.summary().usage().completion_tokens(), 2u);
}

TEST_F(AnswerTest, TextThatWasKeptBackComesLast) {
  Answer answer = Make({"hex"});
  Push({kHe});
  answer.Pull();
  const std::optional<v1::TokenDelta> token = answer.TakeDelta();
  ASSERT_TRUE(token.has_value());
  EXPECT_EQ(Ids(*token), std::vector<uint32_t>{kHe});
  EXPECT_EQ(token->text(), "");
  stream_->Finish({.status = absl::OkStatus(), .reason = FinishReason::kLength});
  answer.Pull();
  const std::optional<v1::TokenDelta> text = answer.TakeDelta();
  ASSERT_TRUE(text.has_value());
  EXPECT_EQ(Ids(*text), std::vector<uint32_t>{});
  EXPECT_EQ(text->text(), "he");
}

TEST_F(AnswerTest, AFaultIsNoEndOfTheText) {
  Answer answer = Make({"hex"});
  Push({kHe});
  stream_->Finish({.status = absl::DeadlineExceededError("too late")});
  answer.Pull();
  EXPECT_EQ(answer.ended(), absl::DeadlineExceededError("too late"));
  const std::optional<v1::TokenDelta> delta = answer.TakeDelta();
  ASSERT_TRUE(delta.has_value());
  EXPECT_EQ(Ids(*delta), std::vector<uint32_t>{kHe});
  EXPECT_EQ(delta->text(), "") << "nobody knows how it would have gone on";
}

TEST_F(AnswerTest, AnIdBeyondTheTokenizerHasNoText) {
  Answer answer = Make();
  Push({kHe, 299, kHe});
  answer.Pull();
  const std::optional<v1::TokenDelta> delta = answer.TakeDelta();
  ASSERT_TRUE(delta.has_value());
  EXPECT_EQ(Ids(*delta), (std::vector<uint32_t>{kHe, 299, kHe}));
  EXPECT_EQ(delta->text(), "hehe");
}

TEST_F(AnswerTest, CarriesLogprobs) {
  Answer answer = Make();
  stream_->Push({.token_id = kHe,
                 .logprob = TokenLogprob{.logprob = -0.25F,
                                         .top = {{.token_id = kHe, .logprob = -0.25F},
                                                 {.token_id = 7, .logprob = -1.5F}}}});
  answer.Pull();
  const std::optional<v1::TokenDelta> delta = answer.TakeDelta();
  ASSERT_TRUE(delta.has_value());
  ASSERT_EQ(delta->logprobs_size(), 1);
  EXPECT_EQ(delta->logprobs(0).token_id(), kHe);
  EXPECT_EQ(delta->logprobs(0).logprob(), -0.25F);
  ASSERT_EQ(delta->logprobs(0).top_size(), 2);
  EXPECT_EQ(delta->logprobs(0).top(1).token_id(), 7u);
  EXPECT_EQ(delta->logprobs(0).top(1).logprob(), -1.5F);
}

}  // namespace
}  // namespace pregate
