#include "core/device/cpu_backend.h"

#include <chrono>
#include <cstring>
#include <future>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace pregate {
namespace {

using ::testing::HasSubstr;

TEST(ParseSimulatedLink, TakesBandwidthAndLatency) {
  const absl::StatusOr<SimulatedLink> link = ParseSimulatedLink("25GiB/s,10us");
  ASSERT_TRUE(link.ok()) << link.status();
  EXPECT_EQ(link->bytes_per_second, 25.0 * (uint64_t{1} << 30));
  EXPECT_DOUBLE_EQ(link->latency_seconds, 10e-6);
  EXPECT_DOUBLE_EQ(ParseSimulatedLink("1MB/s,2ms")->latency_seconds, 2e-3);
  EXPECT_DOUBLE_EQ(ParseSimulatedLink("1MB/s,0s")->latency_seconds, 0);
}

TEST(ParseSimulatedLink, SaysWhatIsWrong) {
  const std::pair<const char*, const char*> bad[] = {{"25GiB/s", "there is no comma"},
                                                     {"25GiB,10us", "does not end with /s"},
                                                     {"0B/s,10us", "the bandwidth is 0"},
                                                     {"25GiB/s,10", "is not a time like 10us"},
                                                     {"25GiB/s,-1us", "is not a time"},
                                                     {"fast/s,10us", "fast"}};
  for (const auto& [text, why] : bad) {
    const absl::Status status = ParseSimulatedLink(text).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr(why)) << text;
  }
}

TEST(CpuBackend, ALinkIsNeverFasterThanItsPace) {
  CpuBackend backend(SimulatedLink{.bytes_per_second = 1e8, .latency_seconds = 1e-4});
  const auto stream = *backend.CreateStream("test");
  const auto other = *backend.CreateStream("other");
  std::vector<std::byte> from(100'000), to(200'000);
  const auto start = std::chrono::steady_clock::now();
  // The copies of all streams take turns.
  for (int i = 0; i < 5; ++i) {
    stream->CopyAsync(to.data(), from.data(), from.size());
    other->CopyAsync(to.data() + 100'000, from.data(), from.size());
  }
  ASSERT_TRUE(stream->Synchronize().ok());
  ASSERT_TRUE(other->Synchronize().ok());
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  EXPECT_GE(took.count(), 10 * (100'000 / 1e8 + 1e-4)) << "the bound of a pace, not of a machine";
}

TEST(CpuBackend, OtherStreamsGoOnWhileOneWaits) {
  CpuBackend backend;
  const auto held = *backend.CreateStream("held");
  const auto other = *backend.CreateStream("other");
  // Passes when the test says so.
  class Gate final : public Event::State {
   public:
    bool Ready() const override { return false; }
    absl::Status BlockUntilReady() const override {
      opened_.get_future().wait();
      return absl::InternalError("lost");
    }
    void Open() { opened_.set_value(); }

   private:
    mutable std::promise<void> opened_;
  };
  const auto gate = std::make_shared<Gate>();
  const std::byte from{7};
  std::byte to[2] = {};
  held->Wait(Event(gate));
  held->CopyAsync(&to[0], &from, 1);
  const Event copied = held->Record();
  other->CopyAsync(&to[1], &from, 1);
  EXPECT_TRUE(other->Synchronize().ok());
  EXPECT_EQ(to[1], from);
  EXPECT_FALSE(copied.Ready());
  gate->Open();
  EXPECT_TRUE(copied.BlockUntilReady().ok()) << "the error is of what was waited for";
  EXPECT_EQ(to[0], from);
}

TEST(CallerStream, WorksAtOnce) {
  CallerStream stream;
  const std::byte from[4] = {std::byte{1}, std::byte{2}, std::byte{3}, std::byte{4}};
  std::byte to[4] = {};
  stream.CopyAsync(to, from, 4);
  EXPECT_EQ(std::memcmp(to, from, 4), 0);
  EXPECT_TRUE(stream.Record().Ready());
  EXPECT_TRUE(stream.Synchronize().ok());
}

TEST(CallerStream, TellsOfTheErrorThatItWaitedFor) {
  class Failed final : public Event::State {
   public:
    bool Ready() const override { return true; }
    absl::Status BlockUntilReady() const override { return absl::InternalError("lost"); }
  };
  CallerStream stream;
  stream.Wait(Event(std::make_shared<Failed>()));
  EXPECT_EQ(stream.Synchronize().message(), "lost");
  EXPECT_TRUE(stream.Synchronize().ok()) << "it is told once";
}

}  // namespace
}  // namespace pregate
