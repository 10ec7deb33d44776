#include "core/expert/recommendation.h"

#include <map>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/fake_profiled_model.h"

namespace pregate {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr uint64_t kMiB = uint64_t{1} << 20;

// 24 GB over PCIe 4.0: an 8 MiB record in 320 us.
DeviceProfile Card(const char* name) {
  DeviceProfile profile;
  profile.host = {.cpu = "AMD EPYC 7B13", .num_cpus = 4, .memory_bytes = 64 << 10 << 10};
  profile.device = name;
  profile.device_bytes = uint64_t{24} << 30;
  profile.free_bytes = uint64_t{23} << 30;
  profile.host_bytes_per_second = 2e10;
  profile.disk_bytes_per_second = 3e9;
  profile.link = {{.bytes = 8 * kMiB, .bytes_per_second = 25e9}};
  profile.codec = "none";
  profile.record_bytes = 8 * kMiB;
  profile.transfer_seconds = 320e-6;
  profile.compute = {{.rows = 1, .seconds = 20e-6},
                     {.rows = 2, .seconds = 21e-6},
                     {.rows = 4, .seconds = 24e-6},
                     {.rows = 8, .seconds = 40e-6},
                     {.rows = 16, .seconds = 78e-6}};
  profile.dense_seconds = 80e-6;
  return profile;
}

// Of 6 layers of 8 experts six fit in int8, and three as they are.
FakeProfiledModel::Options Model() {
  FakeProfiledModel::Options model;
  model.encodings = {{.codec = "none", .record_bytes = 8 * kMiB},
                     {.codec = "int8", .record_bytes = 4 * kMiB},
                     {.codec = "int4", .record_bytes = 2 * kMiB}};
  model.slots = {
      .num_layers = 6, .num_experts = 8, .experts_per_token = 1, .budget_bytes = 24 * kMiB};
  return model;
}

std::map<std::string, Recommendation> Recommended(const DeviceProfile& profile,
                                                  const FakeProfiledModel::Options& model) {
  std::map<std::string, Recommendation> by_flag;
  const auto recommendations = Recommend(profile, FakeProfiledModel(model));
  EXPECT_TRUE(recommendations.ok()) << recommendations.status();
  if (!recommendations.ok()) return by_flag;
  for (const Recommendation& recommendation : *recommendations) {
    EXPECT_NE(recommendation.reason, "") << recommendation.flag;
    by_flag[recommendation.flag] = recommendation;
  }
  return by_flag;
}

TEST(Recommend, ConfirmsThePresetWhereMeasurementsAgree) {
  const auto settings = Recommended(Card("cuda:0: NVIDIA GeForce RTX 3090"), Model());
  EXPECT_EQ(settings.at("expert_capacity").value, "6");
  EXPECT_EQ(settings.at("expert_codec").value, "int8");
  EXPECT_EQ(settings.at("max_running").value, "8");
  EXPECT_EQ(settings.at("speculation_aggressiveness").value, "0.7");
  EXPECT_EQ(settings.at("memory_strategy").value, "single_async");
  for (const char* flag :
       {"expert_capacity", "expert_codec", "max_running", "speculation_aggressiveness"}) {
    EXPECT_EQ(settings.at(flag).preset, settings.at(flag).value) << flag;
    EXPECT_THAT(Explain(settings.at(flag)), EndsWith("the card's preset says the same"));
  }
}

TEST(Recommend, AMeasurementThatContradictsThePresetWins) {
  FakeProfiledModel::Options model = Model();
  model.slots.budget_bytes = uint64_t{20} << 30;
  DeviceProfile card = Card("cuda:0: NVIDIA GeForce RTX 3090");
  card.compute.back().seconds = 50e-6;
  const auto settings = Recommended(card, model);
  EXPECT_EQ(settings.at("expert_capacity").value, "48");
  EXPECT_THAT(Explain(settings.at("expert_capacity")),
              HasSubstr("; the card's preset of 6 gives way"));
  EXPECT_EQ(settings.at("expert_codec").value, "none");
  EXPECT_THAT(Explain(settings.at("expert_codec")),
              AllOf(HasSubstr("holds all experts"), EndsWith("preset of int8 gives way")));
  EXPECT_EQ(settings.at("max_running").value, "16");
  EXPECT_THAT(Explain(settings.at("max_running")), EndsWith("preset of 8 gives way"));
  EXPECT_EQ(settings.at("speculation_aggressiveness").value, "") << "nothing is left to guess";
}

TEST(Recommend, ACardThatIsNotKnownHasNoPreset) {
  for (const auto& [flag, setting] : Recommended(Card("cuda:0: NVIDIA H200"), Model())) {
    EXPECT_EQ(setting.preset, "") << flag;
    EXPECT_THAT(Explain(setting), Not(HasSubstr("preset"))) << flag;
  }
}

TEST(Recommend, AFastLinkWantsExactExpertsAndAffordsGuesses) {
  DeviceProfile card = Card("cuda:0: NVIDIA H200");
  card.transfer_seconds = 40e-6;
  const auto settings = Recommended(card, Model());
  EXPECT_EQ(settings.at("expert_codec").value, "none");
  EXPECT_EQ(settings.at("expert_capacity").value, "3");
  EXPECT_EQ(settings.at("speculation_aggressiveness").value, "0.9");
}

TEST(Recommend, ASlowLinkWantsFewerBytesAndSurerGuesses) {
  DeviceProfile card = Card("cpu");
  card.transfer_seconds = 9000e-6;
  const auto settings = Recommended(card, Model());
  EXPECT_EQ(settings.at("expert_codec").value, "int4");
  EXPECT_EQ(settings.at("expert_capacity").value, "12");
  EXPECT_EQ(settings.at("speculation_aggressiveness").value, "0.4");
}

TEST(Recommend, CountsSlotsInTheCodecThatItChooses) {
  DeviceProfile profiled_in_int8 = Card("cpu");
  profiled_in_int8.codec = "int8";
  profiled_in_int8.record_bytes = 4 * kMiB;
  profiled_in_int8.transfer_seconds = 20e-6;  // an exact one would take 40
  const auto settings = Recommended(profiled_in_int8, Model());
  EXPECT_EQ(settings.at("expert_codec").value, "none");
  EXPECT_EQ(settings.at("expert_capacity").value, "3");
}

TEST(Recommend, AFolderThatIsPackedKeepsItsCodec) {
  FakeProfiledModel::Options model = Model();
  model.encodings = {model.encodings[2]};
  EXPECT_EQ(Recommended(Card("cpu"), model).at("expert_codec").value, "int4");
}

TEST(Recommend, TooLittleMemoryIsSaidByTheStrategy) {
  FakeProfiledModel::Options model = Model();
  model.slots.budget_bytes = 4 * kMiB;
  auto settings = Recommended(Card("cpu"), model);
  EXPECT_EQ(settings.at("memory_strategy").value, "streaming");
  EXPECT_EQ(settings.at("speculation_aggressiveness").value, "");
  model.slots.budget_bytes = 0;
  settings = Recommended(Card("cpu"), model);
  EXPECT_EQ(settings.at("memory_strategy").value, "cpu_offload");
  EXPECT_EQ(settings.at("expert_capacity").value, "");
}

TEST(Recommend, SharedMemoryWantsNoSlotsAndTheMostExactThatHostMemoryHolds) {
  FakeProfiledModel::Options model = Model();
  model.slots.shares_memory = true;
  auto settings = Recommended(Card("cpu"), model);
  EXPECT_EQ(settings.at("memory_strategy").value, "cpu_offload");
  EXPECT_EQ(settings.at("expert_capacity").value, "");
  EXPECT_EQ(settings.at("expert_codec").value, "none");
  model.host_bytes = 200 * kMiB;
  EXPECT_EQ(Recommended(Card("cpu"), model).at("expert_codec").value, "int8");
  model.host_bytes = 10 * kMiB;
  EXPECT_EQ(Recommended(Card("cpu"), model).at("expert_codec").value, "int4");
}

TEST(FormatProfile, IsATable) {
  EXPECT_EQ(FormatProfile(Card("cuda:0: NVIDIA GeForce RTX 3090")),
            "host                     AMD EPYC 7B13, 4 CPUs, 64.0 MiB\n"
            "device                   cuda:0: NVIDIA GeForce RTX 3090, 24.0 GiB, 23.0 GiB free\n"
            "host memory              20.00 GB/s\n"
            "disk                     3.00 GB/s\n"
            "link, 8.0 MiB            25.00 GB/s\n"
            "one expert               8.0 MiB, codec none\n"
            "its copy                 320.0 us\n"
            "its products, 1 token    20.0 us\n"
            "its products, 2 tokens   21.0 us\n"
            "its products, 4 tokens   24.0 us\n"
            "its products, 8 tokens   40.0 us\n"
            "its products, 16 tokens  78.0 us\n"
            "a layer's others         80.0 us\n");
}

}  // namespace
}  // namespace pregate
