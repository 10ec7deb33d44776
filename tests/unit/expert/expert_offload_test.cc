// What an operator, and the device's other users, change while steps run.
#include "core/expert/expert_offload.h"

#include <atomic>
#include <utility>

#include "core/device/cpu_backend.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/fake_clock.h"
#include "tests/support/temp_folder.h"
#include "tests/support/test_pack.h"

namespace pregate {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kRecord = 4096;

// The CPU, whose memory others take as the test says: 1000 records in all.
class ScarceBackend final : public Backend {
 public:
  explicit ScarceBackend(const std::atomic<uint64_t>& free_records) : free_records_(free_records) {}

  absl::StatusOr<Buffer> Allocate(MemoryKind kind, size_t bytes) override {
    return cpu_.Allocate(kind, bytes);
  }
  absl::StatusOr<Buffer> Reserve(size_t bytes) override { return cpu_.Reserve(bytes); }
  absl::Status Commit(const Buffer& reserved, size_t offset, size_t bytes) override {
    return cpu_.Commit(reserved, offset, bytes);
  }
  absl::Status Decommit(const Buffer& reserved, size_t offset, size_t bytes) override {
    return cpu_.Decommit(reserved, offset, bytes);
  }
  absl::StatusOr<std::unique_ptr<Stream>> CreateStream(const std::string& name) override {
    return cpu_.CreateStream(name);
  }
  MemoryInfo memory() const override {
    return {.total_bytes = 1000 * kRecord, .free_bytes = free_records_ * kRecord};
  }

 private:
  CpuBackend cpu_;
  const std::atomic<uint64_t>& free_records_;
};

// 8 layers of 16 experts, top-2.
class ExpertOffloadTest : public testing::Test {
 protected:
  ExpertOffloadTest() : logger_(LogLevel::kInfo, LogFormat::kText, [](const std::string&) {}) {}

  void Open(const std::string& strategy, const std::string& capacity) {
    ExpertPackHeader header;
    header.num_layers = 8;
    header.num_experts = 16;
    header.record_bytes = kRecord;
    header.properties = {{"codec", "none"}};
    absl::StatusOr<ExpertPack> pack =
        ExpertPack::Open(WriteTestPack(folder_ / "experts.pack", header));
    ASSERT_TRUE(pack.ok()) << pack.status();
    ExpertOffload::Options options;
    options.flags.memory_strategy = strategy;
    options.flags.capacity = capacity;
    options.model = {.name = "test", .num_layers = 8, .num_experts = 16, .experts_per_token = 2};
    options.slot_needs = {.num_layers = 8,
                          .num_experts = 16,
                          .experts_per_token = 2,
                          .slot_bytes = kRecord,
                          .budget_bytes = 100 * kRecord};
    absl::StatusOr<SlotPlan> slots = PlanSlots(strategy, capacity, options.slot_needs);
    ASSERT_TRUE(slots.ok()) << slots.status();
    options.slots = *std::move(slots);
    options.memory_period = {};
    std::vector<ExpertPack> packs;
    packs.push_back(*std::move(pack));
    absl::StatusOr<std::unique_ptr<ExpertOffload>> offload =
        ExpertOffload::Create(std::move(options),
                              std::move(packs),
                              std::make_unique<ScarceBackend>(free_records_),
                              clock_,
                              logger_);
    ASSERT_TRUE(offload.ok()) << offload.status();
    offload_ = *std::move(offload);
  }

  uint32_t slots() const { return offload_->Read().cache.num_slots; }
  std::string strategy() const { return offload_->Read().memory_strategy; }
  void CheckMemory(int times) {
    for (int i = 0; i < times; ++i) offload_->CheckMemory();
  }

  const TempFolder folder_;
  std::atomic<uint64_t> free_records_{500};
  FakeClock clock_;
  Logger logger_;
  std::unique_ptr<ExpertOffload> offload_;
};

TEST_F(ExpertOffloadTest, GivesWayToOthersAndReturns) {
  Open("auto", "");
  EXPECT_EQ(slots(), 100u);
  CheckMemory(10);
  EXPECT_EQ(slots(), 100u);

  free_records_ = 15;  // 60 short of 7.5 %
  CheckMemory(1);
  free_records_ = 75;
  EXPECT_EQ(slots(), 40u);
  EXPECT_EQ(strategy(), "single_async");

  free_records_ = 500;
  CheckMemory(5);
  EXPECT_EQ(slots(), 100u);
}

TEST_F(ExpertOffloadTest, AutoStreamsWhileLessThanTwoLayersFit) {
  Open("auto", "");
  free_records_ = 0;
  CheckMemory(1);
  CheckMemory(1);
  free_records_ = 75;
  EXPECT_EQ(slots(), 1u);
  EXPECT_EQ(strategy(), "streaming");

  free_records_ = 500;
  CheckMemory(5);
  EXPECT_EQ(slots(), 100u);
  EXPECT_EQ(strategy(), "single_async");
}

TEST_F(ExpertOffloadTest, AnotherStrategyStaysWhatItIs) {
  Open("single_async", "");
  free_records_ = 0;
  CheckMemory(2);
  free_records_ = 75;
  EXPECT_EQ(slots(), 1u);
  EXPECT_EQ(strategy(), "single_async");
}

TEST_F(ExpertOffloadTest, ACapacityThatWasAskedForComesBackAsSuch) {
  Open("auto", "50");
  free_records_ = 45;  // 30 short
  CheckMemory(1);
  free_records_ = 75;
  EXPECT_EQ(slots(), 20u);
  EXPECT_THAT(std::string(offload_->SetCapacity("60").message()), HasSubstr("only 20 fit"));
  free_records_ = 500;
  CheckMemory(5);
  EXPECT_EQ(slots(), 50u);
}

TEST_F(ExpertOffloadTest, WithoutSlotsThereIsNothingToGive) {
  Open("cpu_offload", "");
  free_records_ = 0;
  CheckMemory(3);
  EXPECT_EQ(strategy(), "cpu_offload");
}

}  // namespace
}  // namespace pregate
