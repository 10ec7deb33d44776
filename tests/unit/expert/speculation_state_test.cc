#include "core/expert/speculation_state.h"

#include <filesystem>
#include <fstream>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/temp_folder.h"

namespace pregate {
namespace {

constexpr PredictorShape kShape = {.num_layers = 24, .num_experts = 32, .experts_per_token = 4};

class SpeculationStateTest : public testing::Test {
 protected:
  SpeculationStateTest() {
    EXPECT_TRUE(WriteSpeculationState(path_, "gpt", kShape, modes_).ok());
    std::ifstream file(path_, std::ios::binary);
    bytes_.assign(std::istreambuf_iterator<char>(file), {});
  }

  TempFolder folder_;
  const std::string path_ = folder_ / "learned";
  const LearnedModes modes_ = {{"adaptive", std::string("a\0b", 3)}, {"multi_layer", "long ago"}};
  std::string bytes_;
};

TEST_F(SpeculationStateTest, ComesBackAsItWas) {
  EXPECT_EQ(ReadSpeculationState(path_, "gpt", kShape).value(), modes_);
}

TEST_F(SpeculationStateTest, ReplacesTheFileAndLeavesNothingBeside) {
  ASSERT_TRUE(WriteSpeculationState(path_, "gpt", kShape, {}).ok());
  EXPECT_EQ(ReadSpeculationState(path_, "gpt", kShape).value(), LearnedModes());
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_.path()),
                          std::filesystem::directory_iterator()),
            1);
}

TEST_F(SpeculationStateTest, IsNotFoundBeforeItIsWritten) {
  const absl::Status status = ReadSpeculationState(folder_ / "none", "gpt", kShape).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
}

TEST_F(SpeculationStateTest, OfAnotherModelIsRefusedByName) {
  const absl::Status status = ReadSpeculationState(path_, "qwen", kShape).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(status.message(),
            absl::StrCat("speculation state ",
                         path_,
                         " is of model gpt (24 layers × 32 experts, 4 per token); this is qwen (24 "
                         "layers × 32 experts, 4 per token)"));
}

TEST_F(SpeculationStateTest, OfAnotherShapeIsRefusedByName) {
  for (const PredictorShape& shape : {PredictorShape{23, 32, 4, false, false},
                                      PredictorShape{24, 33, 4, false, false},
                                      PredictorShape{24, 32, 5, false, false}}) {
    const absl::Status status = ReadSpeculationState(path_, "gpt", shape).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  }
}

TEST_F(SpeculationStateTest, RefusesEveryFlippedBitAndEveryCut) {
  for (size_t i = 0; i < bytes_.size(); ++i) {
    std::string damaged = bytes_;
    damaged[i] = static_cast<char>(damaged[i] ^ 1 << i % 8);
    EXPECT_FALSE(ReadSpeculationState(folder_.Write("damaged", damaged), "gpt", kShape).ok()) << i;
    EXPECT_FALSE(
        ReadSpeculationState(folder_.Write("cut", bytes_.substr(0, i)), "gpt", kShape).ok())
        << i;
  }
  EXPECT_FALSE(ReadSpeculationState(folder_.Write("long", bytes_ + "x"), "gpt", kShape).ok());
}

TEST_F(SpeculationStateTest, SaysWhetherItIsDamagedOrSomethingElse) {
  std::string damaged = bytes_;
  damaged[bytes_.size() / 2] ^= 1;
  EXPECT_EQ(ReadSpeculationState(folder_.Write("damaged", damaged), "gpt", kShape).status().code(),
            absl::StatusCode::kDataLoss);
  const std::string text(100, 'x');
  EXPECT_EQ(ReadSpeculationState(folder_.Write("text", text), "gpt", kShape).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace pregate
