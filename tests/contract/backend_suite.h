// What every backend promises. Whoever has a backend instantiates it:
//   INSTANTIATE_TEST_SUITE_P(All, BackendTest, testing::Values(BackendCase{"Cpu", MakeCpu}),
//   NameOf);
#pragma once

#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "core/device/backend.h"
#include "core/device/cpu_backend.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace pregate {

inline constexpr size_t kBytes = 1 << 16;

struct BackendCase {
  const char* name;
  std::unique_ptr<Backend> (*make)();  // null: this machine has no such device
};

class BackendTest : public testing::TestWithParam<BackendCase> {
 protected:
  BackendTest() : backend_(GetParam().make()) {}

  void SetUp() override {
    if (backend_ == nullptr) GTEST_SKIP() << "there is no device for it";
  }

  Buffer Allocate(MemoryKind kind, size_t bytes = kBytes) {
    absl::StatusOr<Buffer> buffer = backend_->Allocate(kind, bytes);
    EXPECT_TRUE(buffer.ok()) << buffer.status();
    return *std::move(buffer);
  }
  std::unique_ptr<Stream> MakeStream() {
    absl::StatusOr<std::unique_ptr<Stream>> stream = backend_->CreateStream("test");
    EXPECT_TRUE(stream.ok()) << stream.status();
    return *std::move(stream);
  }
  // The host may not be able to touch device memory: a stream does it.
  void Fill(std::byte* device, int value, size_t bytes) {
    const Buffer values = Allocate(MemoryKind::kPinned, bytes);
    std::memset(values.data(), value, bytes);
    Copy(device, values.data(), bytes);
  }
  std::vector<std::byte> Read(const std::byte* device, size_t bytes) {
    const Buffer values = Allocate(MemoryKind::kPinned, bytes);
    Copy(values.data(), device, bytes);
    return std::vector<std::byte>(values.data(), values.data() + bytes);
  }
  void Copy(std::byte* to, const std::byte* from, size_t bytes) {
    const std::unique_ptr<Stream> stream = MakeStream();
    stream->CopyAsync(to, from, bytes);
    EXPECT_TRUE(stream->Synchronize().ok());
  }

  std::unique_ptr<Backend> backend_;
};

TEST_P(BackendTest, GivesMemoryOfEachKindThatCanBeWritten) {
  for (const MemoryKind kind : {MemoryKind::kHost, MemoryKind::kPinned, MemoryKind::kDevice}) {
    const Buffer buffer = Allocate(kind);
    EXPECT_EQ(buffer.kind(), kind);
    EXPECT_EQ(buffer.size(), kBytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 4096, 0u);
    Fill(buffer.data(), 7, kBytes);
    EXPECT_EQ(Read(buffer.data(), kBytes), std::vector<std::byte>(kBytes, std::byte{7}));
  }
}

TEST_P(BackendTest, RefusesMoreThanThereIs) {
  const uint64_t all = backend_->memory().total_bytes;
  EXPECT_GT(all, 0u);
  EXPECT_LE(backend_->memory().free_bytes, all);
  const absl::Status status = backend_->Allocate(MemoryKind::kPinned, all * 2).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("pinned memory"));
}

TEST_P(BackendTest, ABufferGivesItsMemoryBackOnce) {
  int released = 0;
  std::byte memory[8];
  {
    Buffer first(memory, 8, MemoryKind::kHost, [&](std::byte*, size_t) { ++released; });
    Buffer second = std::move(first);
    EXPECT_EQ(first.data(), nullptr);  // NOLINT(bugprone-use-after-move)
    second = Buffer();
    EXPECT_EQ(released, 1);
  }
  EXPECT_EQ(released, 1);
}

TEST_P(BackendTest, AStreamWorksInOrder) {
  const Buffer a = Allocate(MemoryKind::kPinned);
  const Buffer b = Allocate(MemoryKind::kDevice);
  const Buffer c = Allocate(MemoryKind::kPinned);
  const std::unique_ptr<Stream> stream = MakeStream();
  for (int value = 1; value <= 20; ++value) {
    std::memset(a.data(), value, kBytes);
    stream->CopyAsync(b.data(), a.data(), kBytes);
    stream->CopyAsync(c.data(), b.data(), kBytes);
    ASSERT_TRUE(stream->Synchronize().ok());
    EXPECT_EQ(c.data()[0], std::byte(value));
    EXPECT_EQ(c.data()[kBytes - 1], std::byte(value));
  }
}

TEST_P(BackendTest, AnEventPassesBehindTheWorkBeforeIt) {
  const Buffer from = Allocate(MemoryKind::kPinned);
  const Buffer to = Allocate(MemoryKind::kDevice);
  std::memset(from.data(), 9, kBytes);
  const std::unique_ptr<Stream> stream = MakeStream();
  stream->CopyAsync(to.data(), from.data(), kBytes);
  Event event = stream->Record();
  const Event copy = event;
  event = Event();
  EXPECT_TRUE(copy.BlockUntilReady().ok()) << "it does not need the one it was copied from";
  EXPECT_TRUE(copy.Ready());
  EXPECT_EQ(Read(to.data(), kBytes).back(), std::byte{9});
}

TEST_P(BackendTest, SeveralThreadsWaitForOneEvent) {
  const Buffer from = Allocate(MemoryKind::kPinned);
  const Buffer to = Allocate(MemoryKind::kDevice);
  std::memset(from.data(), 4, kBytes);
  const std::unique_ptr<Stream> stream = MakeStream();
  stream->CopyAsync(to.data(), from.data(), kBytes);
  const Event event = stream->Record();
  std::vector<std::thread> threads;
  threads.reserve(3);
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([event] {
      EXPECT_TRUE(event.BlockUntilReady().ok());
      EXPECT_TRUE(event.Ready());
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(Read(to.data(), kBytes).back(), std::byte{4});
}

TEST_P(BackendTest, ADefaultEventHasPassed) {
  const Event event;
  EXPECT_TRUE(event.Ready());
  EXPECT_TRUE(event.BlockUntilReady().ok());
  const std::unique_ptr<Stream> stream = MakeStream();
  stream->Wait(event);
  EXPECT_TRUE(stream->Synchronize().ok());
}

TEST_P(BackendTest, AStreamWaitsForAnother) {
  const Buffer a = Allocate(MemoryKind::kPinned);
  const Buffer b = Allocate(MemoryKind::kDevice);
  const Buffer c = Allocate(MemoryKind::kPinned);
  const std::unique_ptr<Stream> first = MakeStream();
  const std::unique_ptr<Stream> second = MakeStream();
  for (int value = 1; value <= 50; ++value) {
    std::memset(a.data(), value, kBytes);
    first->CopyAsync(b.data(), a.data(), kBytes);
    second->Wait(first->Record());
    second->CopyAsync(c.data(), b.data(), kBytes);
    // The first may overwrite b only behind the second's reading it.
    first->Wait(second->Record());
    ASSERT_TRUE(second->Synchronize().ok());
    ASSERT_EQ(c.data()[kBytes - 1], std::byte(value));
  }
}

TEST_P(BackendTest, TheCallerWaitsForAStream) {
  const Buffer from = Allocate(MemoryKind::kPinned);
  const Buffer to = Allocate(MemoryKind::kDevice);
  std::memset(from.data(), 6, kBytes);
  const std::unique_ptr<Stream> stream = MakeStream();
  CallerStream caller;
  stream->CopyAsync(to.data(), from.data(), kBytes);
  caller.Wait(stream->Record());
  EXPECT_EQ(Read(to.data(), kBytes).back(), std::byte{6});
  // The other way round there is nothing to wait for.
  stream->Wait(caller.Record());
  EXPECT_TRUE(stream->Synchronize().ok());
  EXPECT_TRUE(caller.Synchronize().ok());
}

TEST_P(BackendTest, AStreamWaitsForItself) {
  const std::unique_ptr<Stream> stream = MakeStream();
  stream->Wait(stream->Record());
  EXPECT_TRUE(stream->Synchronize().ok());
}

TEST_P(BackendTest, AStreamTakesWorkFromManyThreads) {
  const Buffer from = Allocate(MemoryKind::kPinned);
  const Buffer to = Allocate(MemoryKind::kDevice);
  std::memset(from.data(), 5, kBytes);
  const std::unique_ptr<Stream> stream = MakeStream();
  std::vector<std::thread> threads;
  for (size_t i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      for (size_t j = i * 64; j < (i + 1) * 64; ++j) {
        stream->CopyAsync(to.data() + j * 256, from.data() + j * 256, 256);
      }
      EXPECT_TRUE(stream->Record().BlockUntilReady().ok());
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(std::memcmp(Read(to.data(), kBytes).data(), from.data(), kBytes), 0);
}

TEST_P(BackendTest, TheEndOfAStreamWaitsForItsWork) {
  const Buffer from = Allocate(MemoryKind::kPinned);
  const Buffer to = Allocate(MemoryKind::kDevice);
  std::memset(from.data(), 3, kBytes);
  {
    const std::unique_ptr<Stream> stream = MakeStream();
    for (size_t i = 0; i < kBytes; i += 1024) {
      stream->CopyAsync(to.data() + i, from.data() + i, 1024);
    }
  }
  EXPECT_EQ(std::memcmp(Read(to.data(), kBytes).data(), from.data(), kBytes), 0);
}

TEST_P(BackendTest, ReservedMemoryComesAndGoesInPlace) {
  constexpr size_t kUnit = Backend::commit_bytes();
  const absl::StatusOr<Buffer> reserved = backend_->Reserve(4 * kUnit);
  ASSERT_TRUE(reserved.ok()) << reserved.status();
  ASSERT_TRUE(backend_->Commit(*reserved, 0, 2 * kUnit).ok());
  Fill(reserved->data(), 1, 2 * kUnit);
  ASSERT_TRUE(backend_->Commit(*reserved, kUnit, 2 * kUnit).ok()) << "twice is allowed";
  EXPECT_EQ(Read(reserved->data(), 2 * kUnit).back(), std::byte{1}) << "what was there stays";
  ASSERT_TRUE(backend_->Decommit(*reserved, kUnit, 3 * kUnit).ok());
  EXPECT_EQ(Read(reserved->data(), kUnit).back(), std::byte{1});
  ASSERT_TRUE(backend_->Commit(*reserved, kUnit, kUnit).ok());
  Fill(reserved->data() + kUnit, 2, kUnit);
  EXPECT_EQ(Read(reserved->data(), 1).front(), std::byte{1});
}

TEST_P(BackendTest, ACommitOfMoreThanThereIsChangesNothing) {
  constexpr size_t kUnit = Backend::commit_bytes();
  const size_t too_many = backend_->memory().total_bytes / kUnit * 2;
  const absl::StatusOr<Buffer> reserved = backend_->Reserve(too_many * kUnit);
  ASSERT_TRUE(reserved.ok()) << reserved.status() << ": addresses are not memory";
  ASSERT_TRUE(backend_->Commit(*reserved, 0, kUnit).ok());
  Fill(reserved->data(), 8, kUnit);
  const absl::Status status = backend_->Commit(*reserved, 0, too_many * kUnit);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("device memory"));
  EXPECT_EQ(Read(reserved->data(), kUnit).back(), std::byte{8});
}

inline std::string NameOf(const testing::TestParamInfo<BackendCase>& test) {
  return test.param.name;
}

}  // namespace pregate
