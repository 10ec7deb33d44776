#include "core/expert/profile.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <optional>
#include <set>
#include <utility>

#include "core/device/cpu_backend.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/fake_clock.h"
#include "tests/support/fake_profiled_model.h"
#include "tests/support/temp_folder.h"
#include "tests/support/test_pack.h"

namespace pregate {
namespace {

using ::testing::SizeIs;

// Copies take no time but the fake clock's.
class PacedStream final : public Stream {
 public:
  PacedStream(double bytes_per_second, FakeClock& clock)
      : bytes_per_second_(bytes_per_second), clock_(clock) {}
  void CopyAsync(std::byte* to, const std::byte* from, size_t bytes) override {
    std::memcpy(to, from, bytes);
    clock_.Advance(FromSeconds(static_cast<double>(bytes) / bytes_per_second_));
  }
  Event Record() override { return Event(); }
  void Wait(const Event&) override {}
  absl::Status Synchronize() override { return absl::OkStatus(); }

 private:
  const double bytes_per_second_;
  FakeClock& clock_;
};

class PacedBackend final : public Backend {
 public:
  PacedBackend(double bytes_per_second, FakeClock& clock)
      : bytes_per_second_(bytes_per_second), clock_(clock) {}
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
  absl::StatusOr<std::unique_ptr<Stream>> CreateStream(const std::string&) override {
    return std::make_unique<PacedStream>(bytes_per_second_, clock_);
  }
  bool is_host() const override { return true; }
  MemoryInfo memory() const override { return cpu_.memory(); }

 private:
  CpuBackend cpu_;
  const double bytes_per_second_;
  FakeClock& clock_;
};

absl::Status GoOn(uint32_t, uint32_t) { return absl::OkStatus(); }

class MeasureDeviceTest : public ::testing::Test {
 protected:
  static constexpr uint64_t kRecordBytes = 100'000;

  MeasureDeviceTest() {
    ExpertPackHeader header;
    header.num_layers = 2;
    header.num_experts = 3;
    header.record_bytes = kRecordBytes;
    header.properties = {{"codec", "int8"}};
    pack_.emplace(*ExpertPack::Open(WriteTestPack(folder_ / "experts.pack", header)));
  }

  absl::StatusOr<DeviceProfile> Measure(Backend& backend,
                                        FakeProfiledModel::Options model,
                                        const Clock& clock = RealClock(),
                                        const OnProfileStep& on_step = GoOn) {
    FakeProfiledModel profiled(std::move(model));
    return MeasureDevice(backend, *pack_, clock, profiled, on_step);
  }

  const TempFolder folder_;
  std::optional<ExpertPack> pack_;
};

TEST_F(MeasureDeviceTest, MeasuresLinkDiskAndExperts) {
  FakeClock clock;
  PacedBackend backend(1e9, clock);
  FakeProfiledModel::Options model;
  model.device = "a card";
  model.dense_seconds = 7e-6;
  const auto profile = Measure(backend, model, clock);
  ASSERT_TRUE(profile.ok()) << profile.status();
  EXPECT_NE(profile->host.cpu, "");
  EXPECT_GE(profile->host.num_cpus, 1u);
  EXPECT_EQ(profile->device, "a card");
  EXPECT_EQ(profile->codec, "int8");
  EXPECT_EQ(profile->record_bytes, kRecordBytes);
  ASSERT_THAT(profile->link, SizeIs(5));
  EXPECT_EQ(profile->link.front().bytes, 256u << 10);
  EXPECT_EQ(profile->link.back().bytes, 64u << 20);
  for (const DeviceProfile::LinkPoint& point : profile->link) {
    EXPECT_NEAR(point.bytes_per_second, 1e9, 1e4) << point.bytes;
  }
  EXPECT_NEAR(profile->transfer_seconds, kRecordBytes / 1e9, 1e-8);
  EXPECT_GT(profile->disk_bytes_per_second, 0);
  EXPECT_GT(profile->host_bytes_per_second, 0);
  ASSERT_THAT(profile->compute, SizeIs(7));
  EXPECT_EQ(profile->compute.front().rows, 1u);
  EXPECT_EQ(profile->compute.back().rows, ProfiledModel::kMostRows);
  EXPECT_DOUBLE_EQ(profile->compute.back().seconds, 64e-6);
  EXPECT_EQ(profile->dense_seconds, 7e-6);
}

TEST_F(MeasureDeviceTest, ComputesExpertsOfThePackInDeviceMemory) {
  CpuBackend backend;
  FakeProfiledModel::Options model;
  std::set<std::pair<uint32_t, uint32_t>> seen;
  model.run_expert = [&](const std::byte* record, uint32_t) {
    for (uint32_t layer = 0; layer < 2; ++layer) {
      for (uint32_t expert = 0; expert < 3; ++expert) {
        const std::vector<std::byte> content = TestRecord(kRecordBytes, layer, expert);
        if (std::memcmp(record, content.data(), content.size()) == 0) seen.insert({layer, expert});
      }
    }
    return 1e-6;
  };
  ASSERT_TRUE(Measure(backend, model).ok());
  EXPECT_THAT(seen, SizeIs(6)) << "one after another, so that no cache holds just one";
}

TEST_F(MeasureDeviceTest, TakesTheFastestOfAFewRuns) {
  FakeClock clock;
  PacedBackend backend(1e12, clock);
  FakeProfiledModel::Options model;
  int run = 0;
  model.run_expert = [&](const std::byte*, uint32_t) { return ++run % 5 == 3 ? 2e-6 : 9e-6; };
  const auto profile = Measure(backend, model, clock);
  ASSERT_TRUE(profile.ok()) << profile.status();
  for (const DeviceProfile::ComputePoint& point : profile->compute) {
    EXPECT_EQ(point.seconds, 2e-6) << point.rows;
  }
}

TEST_F(MeasureDeviceTest, LeavesOutWhatWouldTakeSeconds) {
  // 256 KiB take 131 ms, 1 MiB half a second, and 4 MiB would take two.
  FakeClock clock;
  PacedBackend backend(2e6, clock);
  FakeProfiledModel::Options model;
  model.run_expert = [](const std::byte*, uint32_t rows) { return rows * 0.2; };
  const TimePoint start = clock.Now();
  const auto profile = Measure(backend, model, clock);
  ASSERT_TRUE(profile.ok()) << profile.status();
  EXPECT_LT(clock.Now() - start, std::chrono::seconds(3));
  ASSERT_THAT(profile->link, SizeIs(2));
  EXPECT_NEAR(profile->link.back().bytes_per_second, 2e6, 1);
  EXPECT_NEAR(profile->transfer_seconds, kRecordBytes / 2e6, 1e-6);
  EXPECT_THAT(profile->compute, SizeIs(3)) << "1, 2 and 4 rows; 8 would take 1.6 s";
}

TEST_F(MeasureDeviceTest, TellsHowFarItIs) {
  FakeClock clock;
  PacedBackend backend(2e6, clock);  // too slow for the largest copies, which count as done
  std::vector<uint32_t> done;
  std::set<uint32_t> totals;
  const auto profile = Measure(backend, {}, clock, [&](uint32_t now, uint32_t total) {
    done.push_back(now);
    totals.insert(total);
    return absl::OkStatus();
  });
  ASSERT_TRUE(profile.ok()) << profile.status();
  EXPECT_TRUE(std::is_sorted(done.begin(), done.end()));
  ASSERT_THAT(totals, SizeIs(1));
  EXPECT_EQ(done.front(), 0u);
  EXPECT_EQ(done.back() + 1, *totals.begin());
}

TEST_F(MeasureDeviceTest, EndsAtAnyStepWhenTold) {
  CpuBackend backend;
  for (const uint32_t last : {0u, 1u, 2u, 9u, 15u}) {
    const auto profile = Measure(backend, {}, RealClock(), [&](uint32_t done, uint32_t) {
      return done == last ? absl::CancelledError("enough") : absl::OkStatus();
    });
    EXPECT_EQ(profile.status(), absl::CancelledError("enough")) << last;
  }
}

TEST_F(MeasureDeviceTest, AnExpertThatCannotRunIsAnError) {
  CpuBackend backend;
  FakeProfiledModel::Options model;
  model.run_expert = [](const std::byte*, uint32_t) -> absl::StatusOr<double> {
    return absl::InternalError("no expert");
  };
  EXPECT_EQ(Measure(backend, model).status(), absl::InternalError("no expert"));
}

TEST_F(MeasureDeviceTest, ARecordThatCannotBeReadIsAnError) {
  FlipBit(pack_->path(), pack_->offset_of(1, 2) + 17, 3);
  CpuBackend backend;
  EXPECT_EQ(Measure(backend, {}).status().code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace pregate
