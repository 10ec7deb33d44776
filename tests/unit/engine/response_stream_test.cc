#include "core/engine/response_stream.h"

#include <atomic>
#include <memory>

#include "core/base/thread.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/stream_reader.h"

namespace pregate {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ReaderState = ResponseStream::ReaderState;

GeneratedToken Token(uint32_t id) { return {.token_id = id}; }

Completion Completed() {
  Completion completion;
  completion.completion_tokens = 2;
  return completion;
}

TEST(ResponseStream, GivesTokensInOrderAndThenTheCompletion) {
  ResponseStream stream;
  EXPECT_TRUE(stream.Push(Token(7)));
  EXPECT_TRUE(stream.Push(Token(5)));
  ResponseStream::Batch batch = stream.Take();
  EXPECT_THAT(TokenIds(batch.tokens), ElementsAre(7, 5));
  EXPECT_FALSE(batch.completion.has_value());

  EXPECT_TRUE(stream.Push(Token(9)));
  stream.Finish(Completed());
  batch = stream.Take();
  EXPECT_THAT(TokenIds(batch.tokens), ElementsAre(9));
  ASSERT_TRUE(batch.completion.has_value());
  EXPECT_EQ(batch.completion->completion_tokens, 2u);

  batch = stream.Take();
  EXPECT_THAT(batch.tokens, IsEmpty());
  EXPECT_FALSE(batch.completion.has_value());
}

TEST(ResponseStream, WakesOnceForAllThatArrivesBetweenTwoTakes) {
  ResponseStream stream;
  int wakes = 0;
  stream.SetWake([&] { ++wakes; });
  EXPECT_EQ(wakes, 0);
  stream.Push(Token(1));
  stream.Push(Token(2));
  EXPECT_EQ(wakes, 1);
  stream.Take();
  EXPECT_EQ(wakes, 1);
  stream.Push(Token(3));
  stream.Finish(Completed());
  EXPECT_EQ(wakes, 2);
}

TEST(ResponseStream, WakesAtOnceForWhatIsThereAlready) {
  ResponseStream tokens;
  tokens.Push(Token(1));
  int wakes = 0;
  tokens.SetWake([&] { ++wakes; });
  EXPECT_EQ(wakes, 1);

  ResponseStream completion;
  completion.Finish(Completed());
  completion.SetWake([&] { ++wakes; });
  EXPECT_EQ(wakes, 2);
}

TEST(ResponseStream, WakesForACompletionWithoutTokens) {
  ResponseStream stream;
  int wakes = 0;
  stream.SetWake([&] { ++wakes; });
  stream.Finish(Completed());
  EXPECT_EQ(wakes, 1);
}

TEST(ResponseStream, IsSilentOnceTheWakeIsUnset) {
  ResponseStream stream;
  int wakes = 0;
  stream.SetWake([&] { ++wakes; });
  stream.SetWake(nullptr);
  stream.Push(Token(1));
  stream.Finish(Completed());
  EXPECT_EQ(wakes, 0);
}

TEST(ResponseStream, DropsTokensThatTheReaderWantsNoMore) {
  ResponseStream cancelled;
  cancelled.Push(Token(1));
  cancelled.Cancel();
  EXPECT_FALSE(cancelled.Push(Token(2)));
  EXPECT_THAT(TokenIds(cancelled.Take().tokens), ElementsAre(1));

  ResponseStream stopped;
  stopped.Stop();
  EXPECT_FALSE(stopped.Push(Token(2)));
  EXPECT_THAT(stopped.Take().tokens, IsEmpty());
  stopped.Finish(Completed());
  EXPECT_TRUE(stopped.Take().completion.has_value());
}

TEST(ResponseStream, KeepsTheFirstOfStopAndCancel) {
  ResponseStream stream;
  EXPECT_EQ(stream.reader_state(), ReaderState::kReading);
  stream.Stop();
  stream.Cancel();
  EXPECT_EQ(stream.reader_state(), ReaderState::kStopped);

  ResponseStream other;
  other.Cancel();
  other.Stop();
  EXPECT_EQ(other.reader_state(), ReaderState::kCancelled);
}

TEST(ResponseStream, TheWakeMayTake) {
  ResponseStream stream;
  std::vector<uint32_t> taken;
  stream.SetWake([&] {
    for (const GeneratedToken& token : stream.Take().tokens) taken.push_back(token.token_id);
  });
  stream.Push(Token(1));
  stream.Push(Token(2));
  EXPECT_THAT(taken, ElementsAre(1, 2));
}

// A reader that takes under the lock which its wake takes, as a transport does.
TEST(ResponseStream, DeliversAllToAReaderThatTakesUnderTheWakesLock) {
  constexpr size_t kTokens = 2000;
  ResponseStream stream;
  Mutex mutex;
  CondVar changed;
  bool woken = false;
  stream.SetWake([&] {
    MutexLock lock(mutex);
    woken = true;
    changed.NotifyAll();
  });
  Thread writer("writer", [&] {
    for (uint32_t i = 0; i < kTokens; ++i) stream.Push(Token(i));
    stream.Finish(Completed());
  });
  std::vector<uint32_t> taken;
  for (bool finished = false; !finished;) {
    MutexLock lock(mutex);
    while (!woken) changed.Wait(mutex);
    woken = false;
    const ResponseStream::Batch batch = stream.Take();
    for (const GeneratedToken& token : batch.tokens) taken.push_back(token.token_id);
    finished = batch.completion.has_value();
  }
  ASSERT_EQ(taken.size(), kTokens);
  for (uint32_t i = 0; i < kTokens; ++i) ASSERT_EQ(taken[i], i);
  stream.SetWake(nullptr);
}

TEST(ResponseStream, UnsettingWaitsForAWakeThatIsRunning) {
  ResponseStream stream;
  Mutex mutex;
  CondVar changed;
  bool running = false;
  bool released = false;
  std::atomic<bool> ended{false};
  stream.SetWake([&] {
    MutexLock lock(mutex);
    running = true;
    changed.NotifyAll();
    while (!released) changed.Wait(mutex);
    ended = true;
  });
  Thread writer("writer", [&] { stream.Push(Token(1)); });
  {
    MutexLock lock(mutex);
    while (!running) changed.Wait(mutex);
  }
  Thread releaser("releaser", [&] {
    MutexLock lock(mutex);
    released = true;
    changed.NotifyAll();
  });
  stream.SetWake(nullptr);
  EXPECT_TRUE(ended);
}

TEST(ResponseStreamDeathTest, AbortsOnWritesBehindTheCompletion) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  ResponseStream stream;
  stream.Finish(Completed());
  EXPECT_DEATH(stream.Push(Token(1)), "a token after the completion");
  EXPECT_DEATH(stream.Finish(Completed()), "a second completion");
}

}  // namespace
}  // namespace pregate
