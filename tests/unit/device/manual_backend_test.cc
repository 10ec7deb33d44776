// The device that other tests step by hand.
#include "tests/support/manual_backend.h"

#include <algorithm>
#include <cstring>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace pregate {
namespace {

using ::testing::ElementsAre;

class ManualBackendTest : public testing::Test {
 protected:
  // A kernel that notes that it ran.
  void Note(ManualStream& stream, int number) {
    stream.Kernel("note", {}, {}, [this, number] { ran_.push_back(number); });
  }

  std::vector<int> ran_;  // before the streams, whose end runs what is left
  ManualBackend backend_;
  std::unique_ptr<ManualStream> first_ = backend_.MakeStream("first");
  std::unique_ptr<ManualStream> second_ = backend_.MakeStream("second");
};

TEST_F(ManualBackendTest, NothingRunsBeforeItsStep) {
  const std::byte from{7};
  std::byte to{0};
  first_->CopyAsync(&to, &from, 1);
  const Event event = first_->Record();
  EXPECT_FALSE(event.Ready());
  EXPECT_EQ(to, std::byte{0});
  EXPECT_EQ(first_->pending(), 2u);
  EXPECT_TRUE(first_->Step());
  EXPECT_EQ(to, std::byte{7});
  EXPECT_FALSE(event.Ready());
  EXPECT_TRUE(first_->Step());
  EXPECT_TRUE(event.Ready());
  EXPECT_FALSE(first_->Step()) << "there is nothing left";
}

TEST_F(ManualBackendTest, AStreamCannotStepPastAnEventThatHasNotPassed) {
  second_->Wait(first_->Record());
  Note(*second_, 2);
  EXPECT_FALSE(second_->Step());
  EXPECT_TRUE(first_->Step());
  EXPECT_EQ(backend_.StepAll(), 1u) << "the wait";
  EXPECT_EQ(backend_.StepAll(), 1u) << "the kernel";
  EXPECT_THAT(ran_, ElementsAre(2));
}

TEST_F(ManualBackendTest, WaitingRunsWhatTheEventDependsOnAndNothingElse) {
  Note(*first_, 1);
  const Event middle = first_->Record();
  Note(*first_, 2);
  Note(*second_, 3);
  second_->Wait(middle);
  const Event end = second_->Record();
  Note(*second_, 4);
  EXPECT_TRUE(end.BlockUntilReady().ok());
  EXPECT_THAT(ran_, ElementsAre(3, 1));
  EXPECT_TRUE(middle.Ready());
}

TEST_F(ManualBackendTest, StreamsThatAreNotOrderedRunInManyOrders) {
  std::vector<std::vector<int>> orders;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    ran_.clear();
    for (int i = 0; i < 3; ++i) {
      Note(*first_, i);
      Note(*second_, 10 + i);
    }
    EXPECT_EQ(backend_.RunUntilIdle(seed), 6u);
    std::vector<int> of_first;
    for (const int number : ran_) {
      if (number < 10) of_first.push_back(number);
    }
    EXPECT_THAT(of_first, ElementsAre(0, 1, 2)) << "a stream keeps its order";
    if (std::find(orders.begin(), orders.end(), ran_) == orders.end()) orders.push_back(ran_);
  }
  EXPECT_GT(orders.size(), 5u);
}

TEST_F(ManualBackendTest, ACopyThatFailsLeavesGarbageAndItsError) {
  const std::byte from[4] = {};
  std::byte to[4] = {};
  const Event before = first_->Record();
  first_->FailNextCopy(absl::DataLossError("link down"));
  first_->CopyAsync(to, from, 4);
  second_->Wait(first_->Record());
  Note(*second_, 1);
  EXPECT_TRUE(second_->Synchronize().ok()) << "it is the other stream's error";
  EXPECT_THAT(ran_, ElementsAre(1));
  EXPECT_NE(std::memcmp(to, from, 4), 0);
  EXPECT_TRUE(before.BlockUntilReady().ok());
  EXPECT_EQ(first_->Record().BlockUntilReady().message(), "link down");
  EXPECT_EQ(first_->Synchronize().message(), "link down");
  EXPECT_TRUE(first_->Synchronize().ok()) << "it is told once";
  first_->CopyAsync(to, from, 4);
  EXPECT_TRUE(first_->Synchronize().ok());
  EXPECT_EQ(std::memcmp(to, from, 4), 0);
}

TEST_F(ManualBackendTest, ABlockedThreadGoesOnWhenAnotherHasSteppedSoFar) {
  backend_.SetWaiting(ManualBackend::Waiting::kBlocks);
  Note(*first_, 1);
  const Event event = first_->Record();
  std::thread waiting([&] { EXPECT_TRUE(event.BlockUntilReady().ok()); });
  EXPECT_TRUE(first_->Step());
  EXPECT_TRUE(first_->Step());
  waiting.join();
  EXPECT_THAT(ran_, ElementsAre(1));
}

TEST_F(ManualBackendTest, AThreadSleepsUntilWhatItWaitsForIsStepped) {
  backend_.SetWaiting(ManualBackend::Waiting::kBlocks);
  const Event first = first_->Record();
  const Event second = second_->Record();
  std::thread waiting([&] {
    EXPECT_TRUE(first.BlockUntilReady().ok());
    EXPECT_TRUE(second.BlockUntilReady().ok());
  });
  const auto await_sleep = [&] {
    while (backend_.num_sleeping() == 0) std::this_thread::yield();
  };
  await_sleep();
  EXPECT_TRUE(first_->Step());
  await_sleep();
  EXPECT_EQ(backend_.num_sleeping(), 1u);
  EXPECT_TRUE(second_->Step());
  EXPECT_EQ(backend_.num_sleeping(), 0u) << "before the thread has run at all";
  waiting.join();
}

TEST_F(ManualBackendTest, ABlockedThreadTakesPartOnceThatIsAllowed) {
  backend_.SetWaiting(ManualBackend::Waiting::kBlocks);
  Note(*first_, 1);
  std::thread waiting([&] { EXPECT_TRUE(first_->Synchronize().ok()); });
  backend_.SetWaiting(ManualBackend::Waiting::kRunsWork);
  waiting.join();
  EXPECT_THAT(ran_, ElementsAre(1));
}

TEST_F(ManualBackendTest, FindsTheStreamsThatThereAre) {
  EXPECT_EQ(backend_.FindStream("second"), second_.get());
  second_.reset();
  EXPECT_EQ(backend_.FindStream("second"), nullptr);
}

TEST_F(ManualBackendTest, CountsTheMemoryThatIsTaken) {
  const uint64_t free = backend_.memory().free_bytes;
  {
    const Buffer buffer = *backend_.Allocate(MemoryKind::kPinned, 1000);
    const Buffer reserved = *backend_.Reserve(4 * Backend::commit_bytes());
    EXPECT_EQ(backend_.memory().free_bytes, free - 1000);
    ASSERT_TRUE(backend_.Commit(reserved, 0, 2 * Backend::commit_bytes()).ok());
    ASSERT_TRUE(backend_.Commit(reserved, 0, 3 * Backend::commit_bytes()).ok());
    ASSERT_TRUE(backend_.Decommit(reserved, 0, Backend::commit_bytes()).ok());
    EXPECT_EQ(backend_.memory().free_bytes, free - 1000 - 2 * Backend::commit_bytes());
  }
  EXPECT_EQ(backend_.memory().free_bytes, free);
  EXPECT_TRUE(backend_.checker().status().ok());
}

}  // namespace
}  // namespace pregate
