#include "server/strand.h"

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "core/base/mutex.h"
#include "gtest/gtest.h"

namespace pregate {
namespace {

// Something that threads wait for.
class Signal {
 public:
  void Set() {
    MutexLock lock(mutex_);
    set_ = true;
    changed_.NotifyAll();
  }
  void Await() {
    MutexLock lock(mutex_);
    while (!set_) changed_.Wait(mutex_);
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  bool set_ ABSL_GUARDED_BY(mutex_) = false;
};

TEST(StrandTest, RunsWhatWasPoked) {
  ThreadPool pool("test", 2, 4);
  Signal ran;
  Strand strand(pool, [&] { ran.Set(); });
  strand.Poke();
  ran.Await();
}

TEST(StrandTest, PokesDuringARunCauseOneMore) {
  ThreadPool pool("test", 1, 4);
  Signal started, go, idle;
  int runs = 0;  // no lock: the strand runs one at a time
  Strand strand(pool, [&] {
    if (++runs > 1) return;
    started.Set();
    go.Await();
  });
  strand.Poke();
  started.Await();
  for (int i = 0; i < 10; ++i) strand.Poke();
  ASSERT_TRUE(pool.TryRun([&] { idle.Set(); }));  // behind the strand, on the only thread
  go.Set();
  idle.Await();
  EXPECT_EQ(runs, 2);
}

TEST(StrandTest, NeverRunsTwiceAtOnce) {
  ThreadPool pool("test", 4, 4);
  std::atomic<int> inside = 0;
  std::atomic<int> runs = 0;
  std::atomic<bool> overlapped = false;
  Signal retired;
  Strand strand(pool, [&] {
    if (inside.fetch_add(1) != 0) overlapped = true;
    ++runs;
    inside.fetch_sub(1);
  });
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 1000; ++i) strand.Poke();
    });
  }
  for (std::thread& thread : threads) thread.join();
  while (runs == 0) std::this_thread::yield();  // a run that has not begun, Retire spares
  strand.Retire([&] { retired.Set(); });
  retired.Await();
  EXPECT_FALSE(overlapped);
  EXPECT_LE(runs, 4000);
}

TEST(StrandTest, RetiredFromItsOwnRunItMayBeDestroyed) {
  ThreadPool pool("test", 2, 4);
  Signal destroyed;
  std::unique_ptr<Strand> strand;
  strand = std::make_unique<Strand>(pool, [&] {
    strand->Retire([&] {
      strand.reset();
      destroyed.Set();
    });
  });
  strand->Poke();
  destroyed.Await();
  EXPECT_EQ(strand, nullptr);
}

TEST(StrandTest, RetiredWhileIdleItIsDestroyedAtOnce) {
  ThreadPool pool("test", 1, 1);
  bool destroyed = false;
  Strand strand(pool, [] {});
  strand.Retire([&] { destroyed = true; });
  EXPECT_TRUE(destroyed);
}

}  // namespace
}  // namespace pregate
