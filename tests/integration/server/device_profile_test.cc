// A profile of the device beside what a server serves.
#include <optional>
#include <string>

#include "core/base/mutex.h"
#include "core/base/thread.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/config.h"
#include "tests/support/temp_folder.h"
#include "tests/support/test_server.h"

namespace pregate {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// Lets a profile's experts run one by one. Thread-safe.
class ExpertGate {
 public:
  absl::StatusOr<double> Pass() {
    MutexLock lock(mutex_);
    is_waiting_ = true;
    changed_.NotifyAll();
    while (!is_released_ && !is_open_) changed_.Wait(mutex_);
    is_released_ = false;
    is_waiting_ = false;
    return 1e-6;
  }
  void AwaitExpert() {
    MutexLock lock(mutex_);
    while (!is_waiting_) changed_.Wait(mutex_);
  }
  // Lets the one that waits, if one does, run.
  void Release() {
    MutexLock lock(mutex_);
    is_released_ = is_waiting_;
    changed_.NotifyAll();
  }
  void Open() {
    MutexLock lock(mutex_);
    is_open_ = true;
    changed_.NotifyAll();
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  bool is_open_ ABSL_GUARDED_BY(mutex_) = false;
  bool is_waiting_ ABSL_GUARDED_BY(mutex_) = false;
  bool is_released_ ABSL_GUARDED_BY(mutex_) = false;
};

// A ProfileDevice on a thread of its own.
class ProfileCall {
 public:
  explicit ProfileCall(TestServer& server)
      : thread_(std::in_place, "call", [this, &server] {
          status_ = server.admin().ProfileDevice(&context_, {}, &response_);
        }) {}

  void Cancel() { context_.TryCancel(); }
  const grpc::Status& Wait() {
    thread_.reset();
    return status_;
  }
  const v1::ProfileDeviceResponse& response() const { return response_; }

 private:
  grpc::ClientContext context_;
  v1::ProfileDeviceResponse response_;
  grpc::Status status_;
  std::optional<Thread> thread_;
};

class DeviceProfileTest : public ::testing::Test {
 protected:
  ~DeviceProfileTest() override { gate_.Open(); }

  static FakeEngineOptions WithExperts(ExpertGate& gate) {
    FakeEngineOptions options;
    options.keeps_experts = true;
    options.run_expert = [&gate](const std::byte*, uint32_t) { return gate.Pass(); };
    return options;
  }

  ExpertGate gate_;
  TestServer server_{WithExperts(gate_)};
};

TEST_F(DeviceProfileTest, TellsWhatTheDeviceDoesAndWhatFollows) {
  gate_.Open();
  ProfileCall call(server_);
  ASSERT_TRUE(call.Wait().ok()) << call.Wait().error_message();
  const v1::ProfileDeviceResponse& profile = call.response();
  EXPECT_NE(profile.cpu(), "");
  EXPECT_GE(profile.num_cpus(), 1u);
  EXPECT_GT(profile.host_bytes(), 0u);
  EXPECT_EQ(profile.device(), "a card");
  EXPECT_GE(profile.device_bytes(), profile.device_free_bytes());
  EXPECT_GT(profile.host_bytes_per_second(), 0);
  EXPECT_GT(profile.disk_bytes_per_second(), 0);
  ASSERT_EQ(profile.link_size(), 5);
  EXPECT_EQ(profile.link(0).bytes(), 256u << 10);
  EXPECT_GT(profile.link(0).bytes_per_second(), 0);
  EXPECT_EQ(profile.expert_codec(), "none");
  EXPECT_EQ(profile.expert_bytes(), 4096u);
  EXPECT_GT(profile.expert_transfer_seconds(), 0);
  ASSERT_EQ(profile.expert_compute_size(), 7);
  EXPECT_EQ(profile.expert_compute(6).tokens(), 64u);
  EXPECT_EQ(profile.expert_compute(6).seconds(), 1e-6);
  EXPECT_EQ(profile.dense_seconds(), 5e-6);
  ASSERT_EQ(profile.recommendations_size(), 5);
  EXPECT_EQ(profile.recommendations(0).field(), "max_running");
  EXPECT_EQ(profile.recommendations(0).value(), "64");
  EXPECT_THAT(profile.recommendations(0).reason(), HasSubstr("64 tokens"));
  EXPECT_EQ(profile.recommendations(0).preset(), "");
  EXPECT_EQ(server_.Metric("pregate_requests_total{method=\"ProfileDevice\",code=\"OK\"}"), 1);
  EXPECT_THAT(server_.log().all(), AllOf(HasSubstr("method=ProfileDevice"), HasSubstr("code=OK")));
}

TEST_F(DeviceProfileTest, ItsConfigurationIsOneThatTheServerReads) {
  gate_.Open();
  ProfileCall call(server_);
  ASSERT_TRUE(call.Wait().ok()) << call.Wait().error_message();
  const TempFolder folder;
  ServerOptions options;
  const absl::Status status = ApplyConfigFile(
      folder.Write("profile.textproto", call.response().config()), ServerFlags(options));
  ASSERT_TRUE(status.ok()) << status << "\n" << call.response().config();
  EXPECT_EQ(options.engine.max_running, 64u);
  EXPECT_EQ(options.engine.experts.codec, "none");
  EXPECT_EQ(options.engine.experts.capacity, "8");
}

TEST_F(DeviceProfileTest, OneRunsAtATimeAndCallsGoOnBesideIt) {
  ProfileCall first(server_);
  gate_.AwaitExpert();
  ProfileCall second(server_);
  EXPECT_EQ(second.Wait().error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(DetailsOf(second.Wait()).reason, "PROFILE_UNDER_WAY");
  EXPECT_TRUE(Generate(server_, Ask("Once", 5)).status.ok());
  gate_.Open();
  EXPECT_TRUE(first.Wait().ok()) << first.Wait().error_message();
  ProfileCall third(server_);
  EXPECT_TRUE(third.Wait().ok()) << third.Wait().error_message();
  EXPECT_THAT(server_.log().all(), HasSubstr("code=FAILED_PRECONDITION"));
}

TEST_F(DeviceProfileTest, EndsWhenTheServerDrains) {
  ProfileCall call(server_);
  gate_.AwaitExpert();
  server_.server().StartDraining();
  gate_.Open();
  EXPECT_EQ(call.Wait().error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(DetailsOf(call.Wait()).reason, "DRAINING");
}

TEST_F(DeviceProfileTest, EndsWhenItsCallIsCancelled) {
  // A cancellation takes its time to arrive: experts run one by one meanwhile, and another profile
  // is begun should they all be done before.
  const std::string cancelled =
      "pregate_requests_total{method=\"ProfileDevice\",code=\"CANCELLED\"}";
  while (server_.Metric(cancelled) == 0) {
    ProfileCall call(server_);
    gate_.AwaitExpert();
    call.Cancel();
    EXPECT_EQ(call.Wait().error_code(), grpc::StatusCode::CANCELLED);
    const std::string ok = "pregate_requests_total{method=\"ProfileDevice\",code=\"OK\"}";
    const double before = server_.Metric(ok);
    while (server_.Metric(ok) == before && server_.Metric(cancelled) == 0) gate_.Release();
  }
  gate_.Open();
  ProfileCall next(server_);
  EXPECT_TRUE(next.Wait().ok()) << next.Wait().error_message();
}

}  // namespace
}  // namespace pregate
