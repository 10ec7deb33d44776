// The device's profile: printed, and asked of a server at work.
#include <atomic>

#include "core/base/thread.h"
#include "gmock/gmock.h"
#include "grpcpp/create_channel.h"
#include "gtest/gtest.h"
#include "pregate/v1/admin.grpc.pb.h"
#include "tests/integration/pregated/daemon.h"
#include "tests/support/temp_folder.h"

namespace pregate {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

class ProfileTest : public ::testing::Test {
 protected:
  // What `pregated --profile` prints.
  static std::string Profile(const std::string& model, const std::vector<std::string>& more) {
    std::vector<std::string> argv = {BuiltProgram("pregated"), "--model", model, "--profile"};
    argv.insert(argv.end(), more.begin(), more.end());
    const ProgramResult result = RunProgram(argv);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_THAT(result.err, Not(HasSubstr("listening"))) << "it does not serve";
    return result.out;
  }

  // A server starts with the printed file alone, and answers.
  void ExpectServes(const std::string& model, const std::string& profile) {
    const std::string file = folder_.Write("profile.textproto", profile);
    const ProgramResult checked =
        RunProgram({BuiltProgram("pregated"), "--check-config", "--config", file});
    EXPECT_EQ(checked.exit_code, 0) << checked.err << profile;
    Daemon daemon(model, {"--config", file});
    const Streamed streamed = Stream(daemon, Ask("Once", 5)).Finish();
    EXPECT_TRUE(streamed.status.ok()) << streamed.status.error_message() << profile;
    EXPECT_EQ(streamed.choice.token_ids_size(), 5);
  }

  const TempFolder folder_;
};

TEST_F(ProfileTest, PrintsAConfigurationThatTheServerStartsWith) {
  const std::string model = ShippedModel("switch-mini");
  const std::string profile = Profile(model, {});
  EXPECT_THAT(profile,
              AllOf(StartsWith("# A device profile, "),
                    HasSubstr("# host  "),
                    HasSubstr("# link, 64.0 MiB  "),
                    HasSubstr("# its products, 1 token  "),
                    HasSubstr("model: \"" + model + "\"\n"),
                    HasSubstr("\nmax_running: "),
                    HasSubstr("\nexpert_codec: \"none\"\n"),
                    HasSubstr("\n# No expert_capacity: "),
                    HasSubstr("\nmemory_strategy: \"cpu_offload\"\n")));
  ExpectServes(model, profile);
}

TEST_F(ProfileTest, KeepsWhatTheFlagsSayOfTheDevice) {
  const std::string model = ShippedModel("qwen3-moe-mini");
  const std::string profile =
      Profile(model, {"--simulated-link", "50MiB/s,10us", "--expert-capacity", "3"});
  EXPECT_THAT(profile,
              AllOf(HasSubstr("simulated_link: \"50MiB/s,10us\"\n"),
                    HasSubstr("\nexpert_capacity: \"64\"\n"),
                    HasSubstr("\nmemory_strategy: \"single_async\"\n")));
  ExpectServes(model, profile);
}

TEST_F(ProfileTest, SaysWhyItCannotMeasure) {
  const ProgramResult result =
      RunProgram({BuiltProgram("pregated"), "--model", folder_ / "nowhere", "--profile"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_EQ(result.out, "");
  EXPECT_THAT(result.err, HasSubstr("nowhere"));
}

TEST_F(ProfileTest, LeavesTheTokensOfAServerAtWorkAsTheyAre) {
  Daemon daemon(ShippedModel("switch-mini"), {"--expert-capacity", "25%"});
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  const auto admin = v1::AdminService::NewStub(
      grpc::CreateCustomChannel(daemon.address(), grpc::InsecureChannelCredentials(), arguments));
  const auto tokens = [&] {
    const Streamed streamed = Stream(daemon, Ask("The Linux kernel", 40)).Finish();
    EXPECT_TRUE(streamed.status.ok()) << streamed.status.error_message();
    return std::vector<uint32_t>(streamed.choice.token_ids().begin(),
                                 streamed.choice.token_ids().end());
  };
  const std::vector<uint32_t> alone = tokens();

  v1::ProfileDeviceResponse profile;
  grpc::Status status;
  std::atomic<bool> is_done = false;
  const Thread profiler("profiler", [&] {
    grpc::ClientContext context;
    status = admin->ProfileDevice(&context, {}, &profile);
    is_done = true;
  });
  do {
    EXPECT_EQ(tokens(), alone);
  } while (!is_done);
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(profile.device(), "cpu");
  EXPECT_GT(profile.expert_compute_size(), 0);
  EXPECT_GT(profile.dense_seconds(), 0);
  EXPECT_THAT(profile.config(), HasSubstr("\nexpert_capacity: \"48\"\n"));
}

}  // namespace
}  // namespace pregate
