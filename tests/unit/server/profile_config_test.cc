#include "server/profile_config.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/config.h"
#include "tests/support/temp_folder.h"

namespace pregate {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;
using ::testing::StartsWith;

Engine::Profile SomeProfile() {
  Engine::Profile profile;
  profile.device.device = "a\ncard";
  profile.recommendations = {
      {.flag = "max_running", .value = "8", .reason = "eight", .preset = ""},
      {.flag = "expert_codec", .value = "int8", .reason = "smaller", .preset = "int8"},
      {.flag = "expert_capacity", .value = "", .reason = "shared", .preset = "6"},
      {.flag = "speculation_aggressiveness", .value = "0.4", .reason = "slow", .preset = ""}};
  return profile;
}

TEST(NoteSettings, KeepsWhatFlagsWereSetToLast) {
  ServerOptions options;
  Settings given;
  const std::vector<Flag> flags = NoteSettings(ServerFlags(options), given);
  const auto set = [&](const std::string& name, const std::string& value) {
    for (const Flag& flag : flags) {
      if (flag.name == name) return flag.set(value);
    }
    return absl::NotFoundError(name);
  };
  EXPECT_TRUE(set("max-running", "3").ok());
  EXPECT_TRUE(set("max-running", "4").ok());
  EXPECT_TRUE(set("model", "m").ok());
  EXPECT_FALSE(set("max-queued", "many").ok());
  EXPECT_THAT(given, ElementsAre(Pair("max_running", "4"), Pair("model", "m")));
  EXPECT_EQ(options.engine.max_running, 4u);
}

TEST(FormatProfileConfig, PutsRecommendationsInThePlaceOfWhatWasGiven) {
  const std::string text =
      FormatProfileConfig(SomeProfile(),
                          {{"expert_capacity", "25%"},
                           {"insecure", "true"},
                           {"max_running", "64"},
                           {"model", "a \"quoted\"\nfolder/Modelle-für-alle"}});
  EXPECT_THAT(text, StartsWith("# A device profile, "));
  const TempFolder folder;
  ServerOptions options;
  const absl::Status status =
      ApplyConfigFile(folder.Write("profile.textproto", text), ServerFlags(options));
  ASSERT_TRUE(status.ok()) << status << "\n" << text;
  EXPECT_EQ(options.engine.model, "a \"quoted\"\nfolder/Modelle-für-alle");
  EXPECT_TRUE(options.insecure);
  EXPECT_EQ(options.engine.max_running, 8u);
  EXPECT_EQ(options.engine.experts.codec, "int8");
  EXPECT_EQ(options.engine.experts.capacity, "") << "better left out";
  EXPECT_EQ(options.engine.experts.speculation_aggressiveness, 0.4);
}

TEST(FormatProfileConfig, GivesEachSettingItsReason) {
  const std::string text = FormatProfileConfig(SomeProfile(), {});
  EXPECT_EQ(text.substr(text.find("\n\n") + 1),
            "\n# eight.\nmax_running: 8\n"
            "\n# smaller; the card's preset says the same.\nexpert_codec: \"int8\"\n"
            "\n# No expert_capacity: shared; the card's preset of 6 gives way.\n"
            "\n# slow.\nspeculation_aggressiveness: 0.4\n");
}

}  // namespace
}  // namespace pregate
