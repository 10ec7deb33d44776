// The device's profile, printed.
#include "gmock/gmock.h"
#include "gtest/gtest.h"
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

}  // namespace
}  // namespace pregate
