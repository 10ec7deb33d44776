#include "core/engine/fair_queue.h"

#include <string>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/fake_clock.h"

namespace pregate {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

using std::chrono::seconds;

class FairQueueTest : public ::testing::Test {
 protected:
  // Ids are 0, 1, 2 …
  void Add(const std::string& client, int32_t priority = 0, uint32_t prompt_tokens = 1) {
    Request request;
    request.prompt_token_ids.assign(prompt_tokens, 1);
    request.stopping.max_tokens = 1;
    request.priority = priority;
    request.client = client;
    queue_.Add(std::make_unique<Sequence>(
        next_id_++, std::move(request), std::make_shared<ResponseStream>(), clock_.Now()));
  }

  std::unique_ptr<Sequence> Pop() {
    const Sequence* next = queue_.Next();
    std::unique_ptr<Sequence> popped = queue_.Pop(clock_.Now());
    EXPECT_EQ(popped.get(), next);
    return popped;
  }

  // The ids in the order in which they are popped; they go on running.
  std::vector<uint64_t> PopAll() {
    std::vector<uint64_t> ids;
    while (queue_.size() > 0) {
      running_.push_back(Pop());
      ids.push_back(running_.back()->id());
    }
    EXPECT_EQ(queue_.Next(), nullptr);
    return ids;
  }

  FakeClock clock_;
  FairQueue queue_;
  std::vector<std::unique_ptr<Sequence>> running_;
  uint64_t next_id_ = 0;
};

TEST_F(FairQueueTest, GivesAClientsSequencesInTheirOrder) {
  EXPECT_EQ(queue_.Next(), nullptr);
  Add("a", 0, 9);
  Add("a", 0, 1);
  Add("a", 0, 5);
  EXPECT_THAT(PopAll(), ElementsAre(0, 1, 2));
}

TEST_F(FairQueueTest, AlternatesBetweenClientsOfEqualRequests) {
  for (int i = 0; i < 3; ++i) Add("a");
  for (int i = 0; i < 3; ++i) Add("b");
  EXPECT_THAT(PopAll(), ElementsAre(0, 3, 1, 4, 2, 5));
}

TEST_F(FairQueueTest, CountsTokensAndNotRequests) {
  Add("a", 0, 3);
  Add("a", 0, 3);
  for (int i = 0; i < 5; ++i) Add("b", 0, 1);
  EXPECT_THAT(PopAll(), ElementsAre(0, 2, 3, 4, 1, 5, 6));
}

TEST_F(FairQueueTest, CountsAnswersAsTheyCome) {
  for (int i = 0; i < 3; ++i) Add("a");
  for (int i = 0; i < 4; ++i) Add("b");
  const std::unique_ptr<Sequence> a = Pop();
  const std::unique_ptr<Sequence> b = Pop();
  queue_.OnGenerated(*a);  // as much as two prompt tokens
  EXPECT_THAT(PopAll(), ElementsAre(4, 5, 1, 6, 2));
}

TEST_F(FairQueueTest, AFloodDelaysNobodyElse) {
  for (int i = 0; i < 100; ++i) Add("flood", 0, 10);
  for (int i = 0; i < 10; ++i) running_.push_back(Pop());
  Add("guest", 0, 10);
  EXPECT_EQ(queue_.Next()->client(), "guest");
}

TEST_F(FairQueueTest, WhoComesBackHasSavedNothingUp) {
  Add("a");
  Add("b");
  running_.push_back(Pop());
  running_.push_back(Pop());
  for (int i = 0; i < 6; ++i) Add("a", 0, 10);
  for (int i = 0; i < 4; ++i) running_.push_back(Pop());
  for (int i = 0; i < 2; ++i) Add("b", 0, 10);
  // b has been served 1 and a 41, of which 10 count from b's return on.
  EXPECT_THAT(PopAll(), ElementsAre(8, 6, 9, 7));
}

TEST_F(FairQueueTest, RemembersWhatAClientOwesWhileOthersAreThere) {
  Add("a", 0, 5);
  Add("b", 0, 1);
  const std::unique_ptr<Sequence> a = Pop();
  queue_.OnEnded(*a);
  const std::unique_ptr<Sequence> b = Pop();
  Add("a");
  Add("b");
  EXPECT_THAT(PopAll(), ElementsAre(3, 2));
}

TEST_F(FairQueueTest, ForgetsAllWhenNobodyIsThere) {
  Add("a", 0, 50);
  queue_.OnEnded(*Pop());
  Add("a");
  Add("b");
  EXPECT_THAT(PopAll(), ElementsAre(1, 2));
}

TEST_F(FairQueueTest, GivesHigherPrioritiesFirst) {
  Add("a", -1);
  Add("a", 0);
  Add("a", 10);
  Add("b", 10);
  Add("b", 1);
  EXPECT_THAT(PopAll(), ElementsAre(2, 3, 4, 1, 0));
}

TEST_F(FairQueueTest, SharesEachPriorityByItself) {
  for (int i = 0; i < 3; ++i) Add("a", 1, 50);
  PopAll();
  Add("a", 0);
  Add("b", 0);
  EXPECT_THAT(PopAll(), ElementsAre(3, 4));
}

TEST_F(FairQueueTest, APriorityThatWaitedLongEnoughGetsOnePlace) {
  Add("low", 0);
  Add("low", 0);
  clock_.Advance(2 * FairQueue::kAgeing);
  for (int i = 0; i < 3; ++i) Add("high", 2);
  EXPECT_EQ(Pop()->id(), 2u);  // of equal rank the higher
  clock_.Advance(seconds(1));
  EXPECT_EQ(Pop()->id(), 3u);
  EXPECT_EQ(Pop()->id(), 0u);
  EXPECT_EQ(Pop()->id(), 4u);
  EXPECT_EQ(Pop()->id(), 1u);
}

TEST_F(FairQueueTest, TakesOutWhatIsOver) {
  for (const int32_t priority : {0, 1}) {
    for (const char* client : {"a", "b"}) {
      Add(client, priority);
      Add(client, priority);
    }
  }
  const auto is_odd = [](const Sequence& sequence) { return sequence.id() % 2 == 1; };
  std::vector<uint64_t> taken;
  for (const auto& sequence : queue_.TakeIf(is_odd)) taken.push_back(sequence->id());
  EXPECT_THAT(taken, ElementsAre(5, 7, 1, 3));
  EXPECT_EQ(queue_.size(), 4u);
  EXPECT_THAT(PopAll(), ElementsAre(4, 6, 0, 2));
  EXPECT_THAT(queue_.TakeIf([](const Sequence&) { return true; }), IsEmpty());
}

}  // namespace
}  // namespace pregate
