// Models that cannot be served: the daemon names the file and the tensor at fault.
#include <cstddef>
#include <filesystem>

#include "absl/strings/match.h"
#include "absl/types/span.h"
#include "core/storage/safetensors_header.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/pregated/daemon.h"
#include "tests/support/temp_folder.h"

namespace pregate {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr char kWeights[] = "model.safetensors";

// A copy of switch-mini (bfloat16) to break.
class BrokenModelTest : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const auto& entry : std::filesystem::directory_iterator(ShippedModel("switch-mini")))
      std::filesystem::copy(entry.path(), folder_.path());
    weights_ = ReadFile(folder_ / kWeights);
  }

  // Makes the first number of each tensor whose name contains `part` a NaN.
  void PutNaN(const std::string& part) {
    const absl::StatusOr<SafetensorsHeader> header = ParseSafetensorsHeader(
        absl::MakeConstSpan(reinterpret_cast<const std::byte*>(weights_.data()), weights_.size()));
    ASSERT_TRUE(header.ok()) << header.status();
    int patched = 0;
    for (const SafetensorsHeader::Tensor& tensor : header->tensors) {
      if (!absl::StrContains(tensor.spec.name, part)) continue;
      weights_.replace(header->size + tensor.begin, 2, "\xc0\x7f");
      ++patched;
    }
    ASSERT_GT(patched, 0) << part;
    folder_.Write(kWeights, weights_);
  }

  // Starts the daemon on the copy, which must fail, and returns the last line that it prints.
  std::string Fail(const std::vector<std::string>& more = {}) {
    const ProgramResult result = RunProgram(PregatedArguments(folder_.path(), more));
    EXPECT_EQ(result.exit_code, 1) << result.err;
    const size_t last = result.err.rfind("pregated: ");
    if (last == std::string::npos) return "";
    EXPECT_EQ(result.err.find('\n', last), result.err.size() - 1) << "one line: " << result.err;
    return result.err.substr(last);
  }

  const TempFolder folder_;
  std::string weights_;
};

TEST_F(BrokenModelTest, NoFolder) {
  const std::string missing = folder_ / "missing";
  const ProgramResult result = RunProgram(PregatedArguments(missing));
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr(missing));
}

TEST_F(BrokenModelTest, NoWeights) {
  std::filesystem::remove(folder_ / kWeights);
  EXPECT_THAT(Fail(), AllOf(HasSubstr(folder_.path()), HasSubstr(kWeights)));
}

TEST_F(BrokenModelTest, TruncatedWeights) {
  folder_.Write(kWeights, weights_.substr(0, weights_.size() - 1));
  EXPECT_THAT(Fail(), AllOf(HasSubstr(folder_ / kWeights), HasSubstr("model.norm.weight")));
}

TEST_F(BrokenModelTest, TruncatedInTheHeader) {
  folder_.Write(kWeights, weights_.substr(0, 100));
  EXPECT_THAT(Fail(), HasSubstr(folder_ / kWeights));
}

TEST_F(BrokenModelTest, ATensorOfAnotherShape) {
  const std::string shape = "\"shape\":[4096,160]";
  const size_t place = weights_.find(shape);
  ASSERT_NE(place, std::string::npos);
  weights_.replace(place, shape.size(), "\"shape\":[160,4096]");
  folder_.Write(kWeights, weights_);
  EXPECT_THAT(Fail(),
              AllOf(HasSubstr(folder_ / kWeights),
                    HasSubstr("model.embed_tokens.weight"),
                    HasSubstr("[160, 4096]"),
                    HasSubstr("[4096, 160]")));
}

TEST_F(BrokenModelTest, NaNInADenseTensor) {
  PutNaN("layers.3.self_attn.q_proj");
  EXPECT_THAT(
      Fail(),
      AllOf(HasSubstr(folder_ / kWeights), HasSubstr("model.layers.3.self_attn.q_proj.weight")));
}

TEST_F(BrokenModelTest, NaNInAnExpert) {
  PutNaN("layers.2.mlp.experts.");
  // Experts are read, and looked at, when they are packed.
  EXPECT_THAT(Fail({"--pack-folder", folder_ / "packs"}),
              AllOf(HasSubstr("model.layers.2.mlp.experts."), HasSubstr("not finite")));
}

TEST_F(BrokenModelTest, AConfigurationThatIsNotJson) {
  folder_.Write("config.json", "{\"model_type\": ");
  EXPECT_THAT(Fail(), HasSubstr(folder_ / "config.json"));
}

TEST_F(BrokenModelTest, AnUnknownFamily) {
  folder_.Write("config.json", "{\"model_type\": \"nonesuch\"}");
  EXPECT_THAT(Fail(), AllOf(HasSubstr(folder_ / "config.json"), HasSubstr("nonesuch")));
}

}  // namespace
}  // namespace pregate
