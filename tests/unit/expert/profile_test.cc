#include "core/expert/profile.h"

#include <map>

#include "core/device/cpu_backend.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/temp_folder.h"

namespace pregate {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// 24 GB over PCIe 4.0: an 8 MiB record in 320 us.
DeviceProfile Card(const char* name) {
  return {.device = name,
          .device_bytes = uint64_t{24} << 30,
          .free_bytes = uint64_t{23} << 30,
          .host_bytes_per_second = 2e10,
          .disk_bytes_per_second = 3e9,
          .link = {{.bytes = 8u << 20, .bytes_per_second = 25e9}},
          .compute = {{.rows = 1, .seconds = 20e-6},
                      {.rows = 2, .seconds = 21e-6},
                      {.rows = 4, .seconds = 24e-6},
                      {.rows = 8, .seconds = 40e-6},
                      {.rows = 16, .seconds = 78e-6}},
          .transfer_seconds = 320e-6};
}

ProfiledModel Model() {
  return {.num_layers = 6,
          .num_experts = 8,
          .experts_per_token = 1,
          .record_bytes = 8u << 20,
          .exact_record_bytes = 8u << 20,
          .layer_seconds = 100e-6,
          .expert_budget_bytes = uint64_t{6} * (8u << 20)};
}

std::map<std::string, Recommendation> Recommended(const DeviceProfile& profile,
                                                  const ProfiledModel& model) {
  std::map<std::string, Recommendation> by_flag;
  for (const Recommendation& recommendation : Recommend(profile, model)) {
    by_flag[recommendation.flag] = recommendation;
  }
  return by_flag;
}

TEST(Recommend, ThePresetHoldsWhereMeasurementsAgree) {
  const auto settings = Recommended(Card("cuda:0: NVIDIA GeForce RTX 3090"), Model());
  EXPECT_EQ(settings.at("expert_capacity").value, "6");
  EXPECT_EQ(settings.at("expert_codec").value, "int8");
  EXPECT_EQ(settings.at("max_running").value, "8");
  EXPECT_EQ(settings.at("speculation_aggressiveness").value, "0.7");
  EXPECT_EQ(settings.at("memory_strategy").value, "single_async");
  for (const auto& [flag, setting] : settings) {
    EXPECT_THAT(setting.reason, Not(HasSubstr("give"))) << flag;
  }
}

TEST(Recommend, AMeasurementThatContradictsThePresetWins) {
  ProfiledModel model = Model();
  model.expert_budget_bytes = uint64_t{20} << 30;
  DeviceProfile card = Card("cuda:0: NVIDIA GeForce RTX 3090");
  card.transfer_seconds = 20e-6;
  card.compute.back().seconds = 50e-6;
  const auto settings = Recommended(card, model);
  EXPECT_EQ(settings.at("expert_capacity").value, "48");
  EXPECT_THAT(settings.at("expert_capacity").reason,
              HasSubstr("the preset's 6 concurrent experts give way"));
  EXPECT_EQ(settings.at("expert_codec").value, "none");
  EXPECT_THAT(settings.at("expert_codec").reason,
              AllOf(HasSubstr("all experts fit"), HasSubstr("the preset's int8 gives way")));
  EXPECT_EQ(settings.at("max_running").value, "16");
  EXPECT_EQ(settings.at("speculation_aggressiveness").value, "0.9");
}

TEST(Recommend, ASlowLinkWantsFewerBytesAndSurerGuesses) {
  DeviceProfile card = Card("cpu");
  card.transfer_seconds = 900e-6;
  const auto settings = Recommended(card, Model());
  EXPECT_EQ(settings.at("expert_codec").value, "int4");
  EXPECT_EQ(settings.at("speculation_aggressiveness").value, "0.4");
}

TEST(Recommend, TooLittleMemoryIsSaidByTheStrategy) {
  ProfiledModel model = Model();
  model.expert_budget_bytes = model.record_bytes;
  EXPECT_EQ(Recommended(Card("cpu"), model).at("memory_strategy").value, "streaming");
  model.expert_budget_bytes = 0;
  EXPECT_EQ(Recommended(Card("cpu"), model).at("memory_strategy").value, "cpu_offload");
}

TEST(FormatConfig, IsAConfigurationFileWithReasons) {
  EXPECT_EQ(FormatConfig(
                {{.flag = "max_running", .value = "8", .reason = "eight"},
                 {.flag = "expert_codec", .value = "int8", .is_text = true, .reason = "smaller"}}),
            "# eight\nmax_running: 8\n# smaller\nexpert_codec: \"int8\"\n");
}

TEST(MeasureDevice, MeasuresLinkDiskAndExperts) {
  const TempFolder folder;
  const std::string path = folder / "experts.pack";
  const ExpertPackHeader header = {.num_layers = 2, .num_experts = 3, .record_bytes = 100'000};
  auto writer = ExpertPackWriter::Create(path, header);
  ASSERT_TRUE(writer.ok()) << writer.status();
  for (int i = 0; i < 6; ++i) {
    const std::vector<std::byte> content(header.record_bytes, std::byte(i));
    ASSERT_TRUE((*writer)->Append(content).ok());
  }
  ASSERT_TRUE((*writer)->Finish().ok());
  const auto pack = ExpertPack::Open(path);
  ASSERT_TRUE(pack.ok()) << pack.status();

  CpuBackend backend(SimulatedLink{.bytes_per_second = 1e9, .latency_seconds = 0});
  const RealClock clock;
  std::vector<uint32_t> asked;
  const auto profile = MeasureDevice(backend, "cpu", *pack, clock, [&](uint32_t rows) {
    asked.push_back(rows);
    return absl::StatusOr<double>(rows * 1e-6);
  });
  ASSERT_TRUE(profile.ok()) << profile.status();
  EXPECT_EQ(profile->link.front().bytes, 256u << 10);
  EXPECT_EQ(profile->link.back().bytes, 64u << 20);
  for (const DeviceProfile::LinkPoint& point : profile->link) {
    EXPECT_LE(point.bytes_per_second, 1e9) << "no faster than the link's pace";
  }
  EXPECT_GE(profile->transfer_seconds, 100'000 / 1e9);
  EXPECT_GT(profile->disk_bytes_per_second, 0);
  EXPECT_GT(profile->host_bytes_per_second, 0);
  EXPECT_EQ(profile->compute.front().rows, 1u);
  EXPECT_EQ(profile->compute.back().rows, 64u);
  EXPECT_DOUBLE_EQ(profile->compute.back().seconds, 64e-6);
  EXPECT_THAT(FormatProfile(*profile, {}), AllOf(HasSubstr("link, 64.0 MiB"), HasSubstr("disk")));
}

TEST(MeasureDevice, AnExpertThatCannotRunIsAnError) {
  const TempFolder folder;
  const std::string path = folder / "experts.pack";
  auto writer =
      ExpertPackWriter::Create(path, {.num_layers = 1, .num_experts = 1, .record_bytes = 4096});
  ASSERT_TRUE(writer.ok()) << writer.status();
  ASSERT_TRUE((*writer)->Append(std::vector<std::byte>(4096)).ok());
  ASSERT_TRUE((*writer)->Finish().ok());
  CpuBackend backend;
  EXPECT_EQ(MeasureDevice(
                backend,
                "cpu",
                *ExpertPack::Open(path),
                RealClock(),
                [](uint32_t) -> absl::StatusOr<double> { return absl::InternalError("no expert"); })
                .status()
                .message(),
            "no expert");
}

}  // namespace
}  // namespace pregate
