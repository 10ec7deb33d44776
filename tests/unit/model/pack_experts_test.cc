#include "core/model/pack_experts.h"

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <memory>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/temp_folder.h"
#include "tests/unit/model/tiny_model.h"

namespace pregate {
namespace {

using ::testing::HasSubstr;

// A checkpoint on disk, and what PackExperts is given of it.
class Checkpoint {
 public:
  explicit Checkpoint(const TinyModel& model) : model_(model) { model.Write(folder_.path()); }

  absl::StatusOr<ExpertPack> Pack(Codec codec, Dtype dtype = Dtype::kFloat32) {
    const ModelConfig config = ReadModelConfig(folder_.path()).value();
    const auto header = PackHeaderOf(config, codec, dtype, "a test");
    if (!header.ok()) return header.status();
    const Safetensors files = Safetensors::OpenFolder(folder_.path()).value();
    const absl::Status status =
        PackExperts(files, config, *header, path(), [this](uint64_t done, uint64_t total) {
          EXPECT_EQ(done, ++progress_);
          EXPECT_EQ(total,
                    uint64_t{model_.config["num_hidden_layers"]} *
                        uint64_t{model_.config["num_experts"]});
        });
    if (!status.ok()) return status;
    return ExpertPack::Open(path());
  }
  std::string path() const { return folder_ / "experts.pack"; }
  const TempFolder& folder() const { return folder_; }
  uint64_t progress() const { return progress_; }

 private:
  const TinyModel& model_;
  TempFolder folder_;
  uint64_t progress_ = 0;
};

std::vector<std::byte> ReadRecord(const ExpertPack& pack, uint32_t layer, uint32_t expert) {
  const std::unique_ptr<std::byte, decltype(&std::free)> stride(
      static_cast<std::byte*>(std::aligned_alloc(4096, pack.stride_bytes())), &std::free);
  const absl::Status status =
      pack.Read(layer, expert, absl::MakeSpan(stride.get(), pack.stride_bytes()));
  EXPECT_TRUE(status.ok()) << status;
  return {stride.get(), stride.get() + pack.header().record_bytes};
}

std::vector<float> Decoded(const RecordLayout& layout,
                           const EncodedMatrix& matrix,
                           const std::vector<std::byte>& record) {
  std::vector<float> weights(size_t{matrix.out} * matrix.in);
  DecodeMatrix(layout, matrix, record, weights.data());
  return weights;
}

class PackExpertsTest : public testing::TestWithParam<Codec> {};

// Each matrix of each expert is the checkpoint's, as the codec writes it.
void ExpectPackOf(const TinyModel& model, Codec codec) {
  Checkpoint checkpoint(model);
  const auto pack = checkpoint.Pack(codec);
  ASSERT_TRUE(pack.ok()) << pack.status();
  const ModelConfig config = ReadModelConfig(checkpoint.folder().path()).value();
  const RecordLayout layout = LayoutOfPack(pack->header(), config).value();
  EXPECT_EQ(layout.codec, codec);
  EXPECT_EQ(checkpoint.progress(), pack->num_records());
  for (uint32_t layer = 0; layer < config.num_layers; ++layer) {
    for (uint32_t expert = 0; expert < config.num_experts; ++expert) {
      const std::vector<std::byte> record = ReadRecord(*pack, layer, expert);
      std::vector<std::byte> expected(layout.bytes);
      for (const auto& [name, matrix] : {std::pair{"up_proj", &layout.up},
                                         std::pair{"gate_proj", &layout.gate},
                                         std::pair{"down_proj", &layout.down}}) {
        if (matrix->out == 0) continue;
        const std::vector<float>& weights =
            model
                .at(absl::StrCat(
                    "model.layers.", layer, ".mlp.experts.", expert, ".", name, ".weight"))
                .numbers;
        EncodeMatrix(layout, *matrix, weights.data(), absl::MakeSpan(expected));
        if (codec == Codec::kNone) {
          EXPECT_EQ(Decoded(layout, *matrix, record), weights);
        }
      }
      EXPECT_EQ(record, expected) << layer << "/" << expert;
    }
  }
}

TEST_P(PackExpertsTest, WritesGatedExperts) { ExpectPackOf(MakeTinyQwen3Moe(), GetParam()); }
TEST_P(PackExpertsTest, WritesPlainExperts) { ExpectPackOf(MakeTinySwitch(), GetParam()); }

INSTANTIATE_TEST_SUITE_P(All,
                         PackExpertsTest,
                         testing::Values(Codec::kNone, Codec::kInt8, Codec::kInt4, Codec::kSparse),
                         [](const testing::TestParamInfo<Codec>& test) {
                           return std::string(CodecName(test.param));
                         });

TEST(PackExperts, KeepsABfloat16CheckpointAsItIs) {
  const TinyModel model = MakeTinyQwen3Moe(Dtype::kBfloat16);
  Checkpoint checkpoint(model);
  const auto pack = checkpoint.Pack(Codec::kNone, Dtype::kBfloat16);
  ASSERT_TRUE(pack.ok()) << pack.status();
  const ModelConfig config = ReadModelConfig(checkpoint.folder().path()).value();
  const RecordLayout layout = LayoutOfPack(pack->header(), config).value();
  EXPECT_EQ(layout.dtype, Dtype::kBfloat16);
  EXPECT_EQ(Decoded(layout, layout.down, ReadRecord(*pack, 1, 3)),
            model.at("model.layers.1.mlp.experts.3.down_proj.weight").numbers);
}

TEST(PackExperts, NamesTheTensorThatIsWrong) {
  const std::string name = "model.layers.1.mlp.experts.2.down_proj.weight";
  const auto error = [](const TinyModel& model) {
    Checkpoint checkpoint(model);
    const absl::Status status = checkpoint.Pack(Codec::kInt8).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_FALSE(std::filesystem::exists(checkpoint.path()));
    return std::string(status.message());
  };
  for (const float number :
       {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    TinyModel model = MakeTinyQwen3Moe();
    model.tensors.at(name).numbers.back() = number;
    const std::string message = error(model);
    EXPECT_THAT(message, HasSubstr("tensor " + name + " of "));
    EXPECT_THAT(message,
                HasSubstr("model.safetensors holds a number that is not finite (NaN or infinity)"));
  }
  TinyModel missing = MakeTinyQwen3Moe();
  missing.tensors.erase(name);
  EXPECT_EQ(error(missing),
            "tensor " + name + " is missing from the checkpoint; expected shape [48, 40]");
  TinyModel turned = MakeTinyQwen3Moe();
  std::swap(turned.tensors.at(name).shape[0], turned.tensors.at(name).shape[1]);
  EXPECT_THAT(error(turned), HasSubstr("has shape [40, 48]; expected [48, 40] by config.json"));
}

TEST(PackExperts, RefusesAPackOfAnotherModelAndSaysWhy) {
  const TempFolder folder;
  MakeTinyQwen3Moe().Write(folder.path());
  const ModelConfig config = ReadModelConfig(folder.path()).value();
  const ExpertPackHeader header =
      PackHeaderOf(config, Codec::kInt4, Dtype::kFloat32, "a test").value();
  ASSERT_TRUE(LayoutOfPack(header, config).ok());
  const auto error = [&](const char* key, const char* value) {
    ExpertPackHeader other = header;
    other.properties[key] = value;
    return std::string(LayoutOfPack(other, config).status().message());
  };
  EXPECT_EQ(error("hidden_size", "64"), "the pack's hidden_size is 64; the model's is 48");
  EXPECT_EQ(error("expert_width", "8"), "the pack's expert_width is 8; the model's is 40");
  EXPECT_EQ(error("experts", "plain"), "the pack's experts is plain; the model's is gated");
  EXPECT_EQ(error("model_type", "switch_pregate"),
            "the pack's model_type is switch_pregate; the model's is qwen3_moe");
  EXPECT_THAT(error("codec", "fp8"), HasSubstr("codec 'fp8' is not one of"));
  EXPECT_EQ(error("dtype", "float16"), "the pack's dtype is float16, not float32 or bfloat16");
  EXPECT_THAT(error("codec", "int8"), HasSubstr("by its codec and sizes they should have"));

  ExpertPackHeader silent = header;
  silent.properties.erase("codec");
  EXPECT_EQ(LayoutOfPack(silent, config).status().message(), "the pack does not say its codec");
  ExpertPackHeader smaller = header;
  smaller.num_experts = 7;
  EXPECT_EQ(LayoutOfPack(smaller, config).status().message(),
            "the pack has 3 layers of 7 experts; the model has 3 of 8");
}

TEST(CheckpointFingerprint, ChangesWithTheCheckpointAlone) {
  const TempFolder folder;
  MakeTinySwitch().Write(folder.path());
  const std::string first = CheckpointFingerprint(folder.path()).value();
  folder.Write("README.md", "no part of the checkpoint");
  EXPECT_EQ(CheckpointFingerprint(folder.path()).value(), first);
  const std::string weights = folder / "model.safetensors";
  std::filesystem::last_write_time(
      weights, std::filesystem::last_write_time(weights) + std::chrono::seconds(1));
  EXPECT_NE(CheckpointFingerprint(folder.path()).value(), first);
  EXPECT_FALSE(CheckpointFingerprint(folder / "none").ok());
}

}  // namespace
}  // namespace pregate
