// The hazards that an expert cache has to avoid, planted one by one: each is found, and the
// sequence that does it right is clean.
#include "tests/support/hazard_checker.h"

#include <cstring>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/manual_backend.h"

namespace pregate {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr size_t kRecord = 4096;

// Two slots on the device, the records of two experts on the host, a stream that copies and one
// that computes.
class HazardTest : public testing::Test {
 protected:
  HazardTest() {
    EXPECT_TRUE(backend_.Commit(slots_, 0, slots_.size()).ok());
    for (size_t i = 0; i < 2; ++i) {
      Host(i, "fill");
      std::memset(host_.data() + i * kRecord, static_cast<int>(i + 1), kRecord);
    }
  }

  std::byte* slot(size_t index) const { return slots_.data() + index * kRecord; }
  MemoryRange Slot(size_t index) const { return {.data = slot(index), .bytes = kRecord}; }

  // The host overwrites a record.
  void Host(size_t expert, const std::string& name) {
    backend_.checker().OnHostWrite({.data = host_.data() + expert * kRecord, .bytes = kRecord},
                                   name);
  }
  Event Load(Stream& stream, size_t expert, size_t index) {
    stream.CopyAsync(slot(index), host_.data() + expert * kRecord, kRecord);
    return stream.Record();
  }
  Event Compute(size_t index) {
    compute_->Kernel("mlp", {Slot(index)}, {});
    return compute_->Record();
  }

  // What was found; everything is then run, in an order that `seed` draws, and finds no more.
  std::vector<std::string> Found(uint64_t seed = 1) {
    std::vector<std::string> found;
    for (const Hazard& hazard : backend_.checker().hazards()) found.push_back(hazard.ToString());
    backend_.RunUntilIdle(seed);
    EXPECT_EQ(backend_.checker().hazards().size(), found.size());
    EXPECT_EQ(backend_.checker().status().ok(), found.empty());
    return found;
  }

  ManualBackend backend_;
  Buffer slots_ = *backend_.Reserve(Backend::commit_bytes());
  Buffer host_ = *backend_.Allocate(MemoryKind::kPinned, 2 * kRecord);
  std::unique_ptr<ManualStream> copy_ = backend_.MakeStream("copy");
  std::unique_ptr<ManualStream> compute_ = backend_.MakeStream("compute");
};

TEST_F(HazardTest, TheLifeOfASlotIsClean) {
  Event last_use;
  for (size_t step = 0; step < 10; ++step) {
    copy_->Wait(last_use);
    compute_->Wait(Load(*copy_, step % 2, 0));
    last_use = Compute(0);
  }
  EXPECT_THAT(Found(), IsEmpty());
}

TEST_F(HazardTest, ACopyIntoASlotThatIsStillRead) {
  compute_->Wait(Load(*copy_, 0, 0));
  Compute(0);
  Load(*copy_, 1, 0);  // does not wait for the last use
  EXPECT_THAT(Found(),
              ElementsAre(AllOf(HasSubstr("copy 2 of 'copy' writes 4096 bytes at 0x"),
                                HasSubstr("that mlp 1 of 'compute' reads"))));
}

TEST_F(HazardTest, AKernelThatReadsBeforeTheCopyIsReady) {
  Load(*copy_, 0, 0);
  Compute(0);
  EXPECT_THAT(Found(),
              ElementsAre(AllOf(HasSubstr("mlp 1 of 'compute' reads 4096 bytes at 0x"),
                                HasSubstr("that copy 1 of 'copy' writes"))));
}

TEST_F(HazardTest, AnOrderThatJustHappenedIsNotOne) {
  Load(*copy_, 0, 0);
  while (copy_->Step()) {
  }
  // The copy is done, but nobody has seen it: the kernel might as well have come before it.
  Compute(0);
  EXPECT_THAT(Found(), ElementsAre(HasSubstr("mlp 1 of 'compute' reads")));
}

TEST_F(HazardTest, WhatTheHostHasSeenDoneIsInOrder) {
  const Event ready = Load(*copy_, 0, 0);
  EXPECT_FALSE(ready.Ready());
  while (copy_->Step()) {
  }
  EXPECT_TRUE(ready.Ready());
  const Event used = Compute(0);
  EXPECT_TRUE(used.BlockUntilReady().ok());
  Load(*copy_, 1, 0);
  EXPECT_THAT(Found(), IsEmpty());
}

TEST_F(HazardTest, ALeaseThatIsReleasedBeforeItsKernel) {
  compute_->Wait(Load(*copy_, 0, 0));
  const Event last_use = compute_->Record();
  Compute(0);
  copy_->Wait(last_use);
  Load(*copy_, 1, 0);
  EXPECT_THAT(Found(), ElementsAre(HasSubstr("copy 2 of 'copy' writes")));
}

TEST_F(HazardTest, TheEvictionOfAPinnedSlot) {
  compute_->Wait(Load(*copy_, 0, 0));
  const Event last_use = Compute(0);
  // A second lease holds the slot, and is ordered behind its load; its kernel is still to come.
  copy_->Wait(last_use);
  Load(*copy_, 1, 0);
  Compute(0);
  EXPECT_THAT(Found(),
              ElementsAre(AllOf(HasSubstr("mlp 2 of 'compute' reads"),
                                HasSubstr("that copy 2 of 'copy' writes"))));
}

TEST_F(HazardTest, AHostBufferThatIsReusedBeforeItsCopyIsDone) {
  Load(*copy_, 0, 0);
  Host(0, "the next record from disk");
  EXPECT_TRUE(Load(*copy_, 1, 1).BlockUntilReady().ok());
  Host(1, "another record from disk");
  EXPECT_THAT(Found(),
              ElementsAre(AllOf(HasSubstr("the next record from disk writes 4096 bytes"),
                                HasSubstr("that copy 1 of 'copy' reads"))));
}

TEST_F(HazardTest, AHostThatReadsWhatIsStillBeingWritten) {
  const Event ready = Load(*copy_, 0, 1);
  backend_.checker().OnHostRead(Slot(1), "an expert on the CPU");
  EXPECT_TRUE(ready.BlockUntilReady().ok());
  backend_.checker().OnHostRead(Slot(1), "an expert on the CPU");
  EXPECT_THAT(Found(), ElementsAre(HasSubstr("an expert on the CPU reads 4096 bytes")));
}

TEST_F(HazardTest, TwoCopiesIntoOneSlot) {
  const std::unique_ptr<ManualStream> other = backend_.MakeStream("other");
  Load(*copy_, 0, 0);
  Load(*other, 1, 0);
  EXPECT_THAT(Found(),
              ElementsAre(AllOf(HasSubstr("copy 1 of 'other' writes"),
                                HasSubstr("that copy 1 of 'copy' writes"))));
  other->Wait(Load(*copy_, 0, 1));
  Load(*other, 1, 1);
  EXPECT_EQ(backend_.checker().hazards().size(), 1u);
}

TEST_F(HazardTest, WaitingForTheWrongEvent) {
  const Event of_other_slot = Load(*copy_, 1, 1);
  Load(*copy_, 0, 0);
  compute_->Wait(of_other_slot);
  Compute(1);
  Compute(0);
  EXPECT_THAT(Found(), ElementsAre(HasSubstr("mlp 2 of 'compute' reads")));
}

TEST_F(HazardTest, AnEventThatIsRecordedOnTheWrongStream) {
  Load(*copy_, 0, 0);
  const Event ready = compute_->Record();
  compute_->Wait(ready);
  Compute(0);
  EXPECT_THAT(Found(), ElementsAre(HasSubstr("that copy 1 of 'copy' writes")));
}

TEST_F(HazardTest, TheLastUseOfOneOfTwoReaders) {
  const std::unique_ptr<ManualStream> other = backend_.MakeStream("other");
  for (const size_t index : {0, 1}) {
    const Event ready = Load(*copy_, 0, index);
    compute_->Wait(ready);
    other->Wait(ready);
    other->Kernel("mlp", {Slot(index)}, {});
    if (index == 1) copy_->Wait(other->Record());  // forgotten for slot 0
    copy_->Wait(Compute(index));
    Load(*copy_, 1, index);
  }
  EXPECT_THAT(Found(), ElementsAre(HasSubstr("that mlp 1 of 'other' reads")));
}

TEST_F(HazardTest, MemoryThatGoesUnderACopy) {
  const Event ready = Load(*copy_, 0, 0);
  ASSERT_TRUE(backend_.Decommit(slots_, 0, slots_.size()).ok());
  EXPECT_THAT(Found(),
              ElementsAre(AllOf(HasSubstr("a decommit writes 4096 bytes"),
                                HasSubstr("that copy 1 of 'copy' writes"))));
}

TEST_F(HazardTest, MemoryThatGoesAndComesInOrder) {
  compute_->Wait(Load(*copy_, 0, 0));
  EXPECT_TRUE(Compute(0).BlockUntilReady().ok());
  ASSERT_TRUE(backend_.Decommit(slots_, 0, slots_.size()).ok());
  ASSERT_TRUE(backend_.Commit(slots_, 0, slots_.size()).ok());
  Load(*copy_, 0, 0);
  EXPECT_THAT(Found(), IsEmpty());
}

TEST_F(HazardTest, ASlotThatHasNoMemory) {
  ASSERT_TRUE(backend_.Decommit(slots_, 0, slots_.size()).ok());
  Load(*copy_, 0, 1);
  EXPECT_THAT(Found(),
              ElementsAre(AllOf(HasSubstr("copy 1 of 'copy' uses 4096 bytes at 0x"),
                                HasSubstr("that are not committed"))));
}

TEST_F(HazardTest, ABufferThatEndsBeforeItsCopy) {
  Buffer staging = *backend_.Allocate(MemoryKind::kPinned, kRecord);
  copy_->CopyAsync(slot(0), staging.data(), kRecord);
  while (copy_->Step()) {
  }
  staging = Buffer();
  EXPECT_THAT(Found(),
              ElementsAre(AllOf(HasSubstr("the end of a buffer writes 4096 bytes"),
                                HasSubstr("that copy 1 of 'copy' reads"))));
}

TEST_F(HazardTest, ABufferThatEndsBehindItsCopyLeavesNothingBehind) {
  Buffer staging = *backend_.Allocate(MemoryKind::kPinned, kRecord);
  copy_->CopyAsync(slot(0), staging.data(), kRecord);
  EXPECT_TRUE(copy_->Synchronize().ok());
  const MemoryRange range = {.data = staging.data(), .bytes = staging.size()};
  staging = Buffer();
  // Whoever has the addresses next has nothing to do with that.
  compute_->Kernel("mlp", {}, {range});
  EXPECT_THAT(Found(), IsEmpty());
}

TEST_F(HazardTest, OnlyTheBytesThatOverlapCount) {
  copy_->CopyAsync(slot(0), host_.data(), 1000);
  copy_->CopyAsync(slot(0) + 1000, host_.data() + 1000, 1000);
  compute_->Kernel("before", {{.data = slot(0) + 2000, .bytes = 96}}, {});
  EXPECT_THAT(backend_.checker().hazards(), IsEmpty());
  compute_->Kernel("across", {{.data = slot(0) + 900, .bytes = 200}}, {});
  const std::vector<Hazard> hazards = backend_.checker().hazards();
  ASSERT_EQ(hazards.size(), 2u) << "one for each of the copies";
  for (const Hazard& hazard : hazards) {
    EXPECT_EQ(hazard.kind, Hazard::Kind::kReadOfWrite);
    EXPECT_EQ(hazard.range.bytes, 100u);
  }
  EXPECT_EQ(hazards[1].range.data, slot(0) + 1000);
}

TEST_F(HazardTest, OrderIsPassedOnThroughAThirdStream) {
  const std::unique_ptr<ManualStream> middle = backend_.MakeStream("middle");
  middle->Wait(Load(*copy_, 0, 0));
  compute_->Wait(middle->Record());
  const Event used = Compute(0);
  middle->Wait(used);
  copy_->Wait(middle->Record());
  Load(*copy_, 1, 0);
  EXPECT_THAT(Found(), IsEmpty());
}

}  // namespace
}  // namespace pregate
