#include "core/base/thread.h"

#include <atomic>
#include <vector>

#include "gtest/gtest.h"

namespace pregate {
namespace {

TEST(ThreadPool, RunsEveryAcceptedTaskBeforeItEnds) {
  std::atomic<int> ran = 0;
  int accepted = 0;
  {
    ThreadPool pool("pool", /*threads=*/3, /*capacity=*/1000);
    for (int i = 0; i < 1000; ++i) accepted += pool.TryRun([&] { ++ran; });
  }
  EXPECT_EQ(accepted, 1000);
  EXPECT_EQ(ran, 1000);
}

TEST(ThreadPool, OneThreadKeepsOrder) {
  std::vector<int> order;
  {
    ThreadPool pool("pool", /*threads=*/1, /*capacity=*/100);
    for (int i = 0; i < 100; ++i) ASSERT_TRUE(pool.TryRun([&order, i] { order.push_back(i); }));
  }
  ASSERT_EQ(order.size(), 100u);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(order[static_cast<size_t>(i)], i);
}

TEST(ThreadPool, RefusesWhatItsQueueCannotHold) {
  BoundedQueue<int> gate(1);
  BoundedQueue<int> started(1);
  ThreadPool pool("pool", /*threads=*/1, /*capacity=*/1);
  ASSERT_TRUE(pool.TryRun([&] {
    started.TryPush(1);
    gate.Pop();
  }));
  started.Pop();  // the thread is busy now, so the queue alone decides
  EXPECT_TRUE(pool.TryRun([] {}));
  EXPECT_FALSE(pool.TryRun([] {}));
  gate.TryPush(1);
}

}  // namespace
}  // namespace pregate
