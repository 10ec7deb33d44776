#include "core/base/queue.h"

#include <memory>
#include <vector>

#include "core/base/thread.h"
#include "gtest/gtest.h"

namespace pregate {
namespace {

TEST(BoundedQueue, KeepsOrderAndRefusesWhatDoesNotFit) {
  BoundedQueue<std::unique_ptr<int>> queue(2);
  EXPECT_TRUE(queue.TryPush(std::make_unique<int>(1)));
  EXPECT_TRUE(queue.TryPush(std::make_unique<int>(2)));
  auto refused = std::make_unique<int>(3);
  EXPECT_FALSE(queue.TryPush(std::move(refused)));
  ASSERT_NE(refused, nullptr) << "a refused item stays with its owner";
  EXPECT_EQ(**queue.Pop(), 1);
  EXPECT_EQ(**queue.Pop(), 2);
}

TEST(BoundedQueue, PopAvailableTakesAtMostTheLimit) {
  BoundedQueue<int> queue(4);
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(queue.TryPush(int{i}));
  EXPECT_EQ(queue.PopAvailable(3), (std::vector<int>{0, 1, 2}));
  EXPECT_EQ(queue.PopAvailable(3), (std::vector<int>{3}));
  EXPECT_TRUE(queue.PopAvailable(3).empty());
}

TEST(BoundedQueue, CloseDrainsThenEnds) {
  BoundedQueue<int> queue(4);
  EXPECT_TRUE(queue.TryPush(7));
  queue.Close();
  EXPECT_FALSE(queue.TryPush(8));
  EXPECT_EQ(queue.Pop(), std::optional<int>(7));
  EXPECT_EQ(queue.Pop(), std::nullopt);
}

TEST(BoundedQueue, CloseWakesAWaitingConsumer) {
  BoundedQueue<int> queue(1);
  std::optional<int> popped = 1;
  {
    Thread consumer("consumer", [&] { popped = queue.Pop(); });
    queue.Close();
  }
  EXPECT_EQ(popped, std::nullopt);
}

}  // namespace
}  // namespace pregate
