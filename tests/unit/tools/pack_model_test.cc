// Packing and verifying, as a user does it and as a test that damages every bit does.
#include "tools/pack_model.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "core/storage/expert_pack.h"
#include "core/storage/safetensors.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/support/process.h"
#include "tests/support/temp_folder.h"
#include "tests/support/test_pack.h"
#include "tools/verify.h"

namespace pregate {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;

ProgramResult RunModelTool(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), BuiltProgram("pregate-model"));
  return RunProgram(arguments);
}

nlohmann::json TinyConfig() {
  return {{"model_type", "qwen3_moe"},
          {"vocab_size", 300},
          {"hidden_size", 32},
          {"num_hidden_layers", 3},
          {"num_attention_heads", 4},
          {"num_key_value_heads", 2},
          {"head_dim", 16},
          {"moe_intermediate_size", 64},
          {"num_experts", 4},
          {"num_experts_per_tok", 2},
          {"max_position_embeddings", 64},
          {"tie_word_embeddings", false},
          {"eos_token_id", 2}};
}

// A folder with a checkpoint "model" of 12 experts.
class PackModelTest : public testing::Test {
 protected:
  PackModelTest() {
    const ProgramResult result = Synthesize(TinyConfig(), "model", {});
    EXPECT_EQ(result.exit_code, 0) << result.err;
  }

  ProgramResult Synthesize(const nlohmann::json& config,
                           const std::string& out,
                           std::vector<std::string> flags) {
    std::vector<std::string> arguments = {
        "synthesize", "--config", folder_.Write("config.json", config.dump()), folder_ / out};
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    return RunModelTool(arguments);
  }
  // Packs "model" into `out`.
  ProgramResult Pack(const std::string& out, std::vector<std::string> flags = {}) {
    std::vector<std::string> arguments = {"pack", folder_ / "model", folder_ / out};
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    return RunModelTool(arguments);
  }
  ProgramResult Verify(const std::string& path) { return RunModelTool({"verify", folder_ / path}); }
  ExpertPackHeader Header(const std::string& packed) {
    return ExpertPack::Open(folder_ / (packed + "/experts.pack")).value().header();
  }

  TempFolder folder_;
};

TEST_F(PackModelTest, MakesAFolderOfDenseTensorsAndAPack) {
  folder_.Write("model/LICENSE", "Apache-2.0");
  folder_.Write("model/pytorch_model.bin", "no longer of use");
  const ProgramResult result = Pack("packed", {"--codec", "int8"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out,
              MatchesRegex(".*/packed: 12 experts, codec int8, [^\n]* in experts.pack; [^\n]* in "
                           "dense.safetensors\n"));
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder_ / "packed")) {
    names.push_back(entry.path().filename().string());
  }
  EXPECT_THAT(names,
              UnorderedElementsAre("LICENSE",
                                   "config.json",
                                   "dense.checksums.json",
                                   "dense.safetensors",
                                   "experts.pack",
                                   "generation_config.json",
                                   "tokenizer.json",
                                   "tokenizer_config.json"));
  EXPECT_FALSE(fs::exists(folder_ / "packed.partial"));
  for (const char* name : {"LICENSE", "config.json", "tokenizer.json"}) {
    EXPECT_EQ(ReadFile(folder_ / absl::StrCat("packed/", name)),
              ReadFile(folder_ / absl::StrCat("model/", name)));
  }

  const Safetensors model = Safetensors::OpenFolder(folder_ / "model").value();
  const Safetensors dense = Safetensors::Open(folder_ / "packed/dense.safetensors").value();
  EXPECT_EQ(dense.tensors().size(), model.tensors().size() - 36) << "3 layers of 4 experts";
  for (const auto& [name, tensor] : dense.tensors()) {
    EXPECT_EQ(tensor.bytes, model.Find(name)->bytes) << name;
  }
  const ExpertPackHeader header = Header("packed");
  EXPECT_EQ(header.num_layers, 3u);
  EXPECT_EQ(header.num_experts, 4u);
  EXPECT_EQ(header.properties.at("codec"), "int8");
  EXPECT_EQ(header.properties.at("dtype"), "float32");
}

TEST_F(PackModelTest, TakesThePrototypesCodecs) {
  for (const auto& [spelling, codec] : {std::pair{"none", "none"},
                                        {"int8_dynamic", "int8"},
                                        {"int4_grouped", "int4"},
                                        {"structured_sparse", "sparse"}}) {
    EXPECT_EQ(Pack(spelling, {"--codec", spelling}).exit_code, 0);
    EXPECT_EQ(Header(spelling).properties.at("codec"), codec);
    EXPECT_EQ(Verify(spelling).exit_code, 0);
  }
}

TEST_F(PackModelTest, WritesTheDtypeThatItIsToldIntoTheConfig) {
  EXPECT_EQ(Pack("packed", {"--dtype", "bfloat16"}).exit_code, 0);
  EXPECT_EQ(Header("packed").properties.at("dtype"), "bfloat16");
  EXPECT_EQ(nlohmann::json::parse(ReadFile(folder_ / "packed/config.json"))["dtype"], "bfloat16");
}

TEST_F(PackModelTest, GoesOnBehindAKill) {
  ASSERT_EQ(Pack("whole").exit_code, 0);
  const std::string pack = ReadFile(folder_ / "whole/experts.pack");
  // The kernel kills what writes a file beyond this many bytes: 100 KiB, of 340.
  const std::string limited = absl::StrCat("ulimit -c 0; ulimit -f 200; exec '",
                                           BuiltProgram("pregate-model"),
                                           "' pack '",
                                           folder_ / "model",
                                           "' '",
                                           folder_ / "packed",
                                           "'");
  const ProgramResult killed = RunProgram({"sh", "-c", limited});
  EXPECT_EQ(killed.exit_code, 128 + SIGXFSZ) << killed.err;
  EXPECT_FALSE(fs::exists(folder_ / "packed"));
  const std::string partial = folder_ / "packed.partial/experts.pack.partial";
  ASSERT_TRUE(fs::exists(partial));
  const auto inode = [](const std::string& path) {
    struct stat status;
    EXPECT_EQ(stat(path.c_str(), &status), 0) << path;
    return status.st_ino;
  };
  const ino_t begun = inode(partial);

  folder_.Write("packed.partial/stale.json", "{}");
  const ProgramResult result = Pack("packed");
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(inode(folder_ / "packed/experts.pack"), begun) << "the same file was gone on with";
  EXPECT_EQ(ReadFile(folder_ / "packed/experts.pack"), pack);
  EXPECT_FALSE(fs::exists(folder_ / "packed/stale.json"));
  EXPECT_FALSE(fs::exists(folder_ / "packed.partial"));
  EXPECT_EQ(Verify("packed").exit_code, 0);
}

TEST_F(PackModelTest, UsesThePackThatARunLeftWhole) {
  ASSERT_EQ(Pack("whole").exit_code, 0);
  fs::create_directory(folder_ / "packed.partial");
  fs::rename(folder_ / "whole/experts.pack", folder_ / "packed.partial/experts.pack");
  const fs::file_time_type time = fs::last_write_time(folder_ / "packed.partial/experts.pack");
  EXPECT_EQ(Pack("packed").exit_code, 0);
  EXPECT_EQ(fs::last_write_time(folder_ / "packed/experts.pack"), time);

  // But not that of another codec.
  fs::create_directory(folder_ / "other.partial");
  fs::rename(folder_ / "packed/experts.pack", folder_ / "other.partial/experts.pack");
  EXPECT_EQ(Pack("other", {"--codec", "int4"}).exit_code, 0);
  EXPECT_EQ(Header("other").properties.at("codec"), "int4");
}

TEST_F(PackModelTest, RefusesWhatItCannotPackAndSaysWhy) {
  const auto failure = [](const ProgramResult& result) {
    EXPECT_EQ(result.exit_code, 1);
    EXPECT_EQ(result.out, "");
    EXPECT_THAT(result.err, MatchesRegex("pregate-model: [^\n]*\n"));
    return result.err;
  };
  fs::create_directory(folder_ / "empty");
  EXPECT_THAT(failure(RunModelTool({"pack", folder_ / "empty", folder_ / "out"})),
              HasSubstr("empty/config.json"));
  EXPECT_THAT(failure(Pack("model")), HasSubstr("model exists and is not empty"));
  ASSERT_EQ(Pack("packed").exit_code, 0);
  EXPECT_THAT(failure(RunModelTool({"pack", folder_ / "packed", folder_ / "out"})),
              HasSubstr("packed is packed already; give the checkpoint that it was made from"));

  fs::create_directory(folder_ / "busy.partial");
  const int busy = open((folder_ / "busy.partial").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  ASSERT_EQ(flock(busy, LOCK_EX), 0);
  EXPECT_THAT(failure(Pack("busy")), HasSubstr("another program is at work on"));
  close(busy);

  // An infinite number in the last expert: nothing is left behind.
  const Safetensors tensors = Safetensors::OpenFolder(folder_ / "model").value();
  const TensorView& last = *tensors.Find("model.layers.2.mlp.experts.3.up_proj.weight");
  std::string bytes = ReadFile(folder_ / "model/model.safetensors");
  const size_t offset =
      bytes.find(std::string(reinterpret_cast<const char*>(last.bytes.data()), last.bytes.size()));
  bytes.replace(offset, 4, std::string("\x00\x00\x80\x7f", 4));
  folder_.Write("model/model.safetensors", bytes);
  EXPECT_THAT(failure(Pack("out")),
              AllOf(HasSubstr("tensor model.layers.2.mlp.experts.3.up_proj.weight of "),
                    HasSubstr("holds a number that is not finite (NaN or infinity)")));
  EXPECT_FALSE(fs::exists(folder_ / "out"));
  EXPECT_FALSE(fs::exists(folder_ / "out.partial"));
}

TEST_F(PackModelTest, CommandLinesThatAreWrongExitWith2) {
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"pack"},
        {"pack", folder_ / "model"},
        {"pack", folder_ / "model", folder_ / "out", "--codec", "fp8"},
        {"pack", folder_ / "model", folder_ / "out", "--dtype", "float16"},
        {"verify"},
        {"synthesize", "--shape", "S", "--codec", "int8", folder_ / "out"}}) {
    const ProgramResult result = RunModelTool(arguments);
    EXPECT_EQ(result.exit_code, 2) << ::testing::PrintToString(arguments);
    EXPECT_THAT(result.err, MatchesRegex("pregate-model: [^\n]*\\(see --help\\)\n"));
  }
  EXPECT_FALSE(fs::exists(folder_ / "out"));
  for (const char* command : {"pack", "verify"}) {
    const ProgramResult help = RunModelTool({command, "--help"});
    EXPECT_EQ(help.exit_code, 0);
    EXPECT_LE(std::count(help.out.begin(), help.out.end(), '\n'), 24) << help.out;
  }
}

TEST_F(PackModelTest, InspectsFoldersAndPacks) {
  ASSERT_EQ(Pack("packed", {"--codec", "int4"}).exit_code, 0);
  const ProgramResult table = RunModelTool({"inspect", folder_ / "packed"});
  EXPECT_EQ(table.exit_code, 0) << table.err;
  EXPECT_THAT(table.out,
              AllOf(HasSubstr("codec                int4\n"),
                    HasSubstr("layers               3 of 4 experts\n")));

  const auto json =
      nlohmann::json::parse(RunModelTool({"inspect", "--json", folder_ / "packed"}).out);
  const auto was =
      nlohmann::json::parse(RunModelTool({"inspect", "--json", folder_ / "model"}).out);
  EXPECT_EQ(json["experts"]["parameters"], was["experts"]["parameters"]);
  EXPECT_EQ(json["dense"], was["dense"]);
  EXPECT_EQ(json["pack"]["properties"]["codec"], "int4");
  EXPECT_EQ(json["pack"]["bytes"], json["experts"]["bytes"]);

  const ProgramResult alone = RunModelTool({"inspect", "--json", folder_ / "packed/experts.pack"});
  EXPECT_EQ(nlohmann::json::parse(alone.out), json["pack"]);
  EXPECT_THAT(RunModelTool({"inspect", folder_ / "packed/experts.pack"}).out,
              HasSubstr("bytes a weight"));
}

TEST_F(PackModelTest, SynthesizesPacksThatVerify) {
  for (const char* codec : {"none", "int8", "int4", "sparse"}) {
    const ProgramResult result = Synthesize(TinyConfig(), codec, {"--pack", "--codec", codec});
    ASSERT_EQ(result.exit_code, 0) << result.err;
    EXPECT_EQ(Verify(codec).exit_code, 0);
    EXPECT_EQ(Header(codec).properties.at("codec"), codec);
    EXPECT_EQ(ReadFile(folder_ / absl::StrCat(codec, "/dense.safetensors")),
              ReadFile(folder_ / "none/dense.safetensors"))
        << "the codec is the experts' alone";
  }
  ASSERT_EQ(Synthesize(TinyConfig(), "again", {"--pack"}).exit_code, 0);
  EXPECT_EQ(ReadFile(folder_ / "again/experts.pack"), ReadFile(folder_ / "none/experts.pack"));
  ASSERT_EQ(Synthesize(TinyConfig(), "other", {"--pack", "--seed", "1"}).exit_code, 0);
  EXPECT_NE(ReadFile(folder_ / "other/experts.pack"), ReadFile(folder_ / "none/experts.pack"));
}

// Down of every expert of a synthesized pack, decoded.
std::vector<std::vector<float>> DecodedDowns(const std::string& folder, Codec codec) {
  const ExpertPack pack = ExpertPack::Open(folder + "/experts.pack").value();
  const RecordLayout layout =
      LayOutRecord(codec, {.hidden_size = 32, .expert_width = 64, .is_gated = true}).value();
  std::vector<std::vector<float>> downs;
  const std::string bytes = ReadFile(pack.path());
  for (uint32_t i = 0; i < 12; ++i) {
    std::vector<float>& down = downs.emplace_back(size_t{32} * 64);
    const auto* record =
        reinterpret_cast<const std::byte*>(bytes.data()) + pack.offset_of(i / 4, i % 4);
    DecodeMatrix(layout, layout.down, absl::MakeSpan(record, layout.bytes), down.data());
  }
  return downs;
}

TEST_F(PackModelTest, SynthesizedExpertsDifferAndKeepActivationsAtTheirScale) {
  ASSERT_EQ(Synthesize(TinyConfig(), "none", {"--pack"}).exit_code, 0);
  ASSERT_EQ(Synthesize(TinyConfig(), "int8", {"--pack", "--codec", "int8"}).exit_code, 0);
  const auto exact = DecodedDowns(folder_ / "none", Codec::kNone);
  const auto rounded = DecodedDowns(folder_ / "int8", Codec::kInt8);
  for (size_t i = 0; i < exact.size(); ++i) {
    for (size_t j = 0; j < i; ++j) EXPECT_NE(exact[i], exact[j]);
    double squares = 0;
    for (size_t k = 0; k < exact[i].size(); ++k) {
      squares += double{exact[i][k]} * exact[i][k];
      EXPECT_NEAR(rounded[i][k], exact[i][k], 0.005) << "the same weights, whatever the codec";
    }
    EXPECT_NEAR(squares / exact[i].size() * 64 * 0.356, 1, 0.25);
  }
}

TEST_F(PackModelTest, VerifyNamesWhatIsDamaged) {
  ASSERT_EQ(Pack("packed").exit_code, 0);
  const ExpertPack pack = ExpertPack::Open(folder_ / "packed/experts.pack").value();
  FlipBit(pack.path(), pack.offset_of(1, 2) + 77, 4);
  FlipBit(pack.path(), pack.offset_of(2, 0) + 5, 0);
  const std::string dense = folder_ / "packed/dense.safetensors";
  FlipBit(dense, fs::file_size(dense) - 1, 6);
  const ProgramResult result = Verify("packed");
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_EQ(result.out, "");
  EXPECT_THAT(result.err,
              AllOf(HasSubstr("expert 1/2: its checksum is"),
                    HasSubstr("expert 2/0: its checksum is"),
                    HasSubstr("dense.safetensors: tensor "),
                    EndsWith("packed: damaged are 2 of 12 experts and 1 of 30 tensors\n")));

  const ProgramResult alone = Verify("packed/experts.pack");
  EXPECT_EQ(alone.exit_code, 1);
  EXPECT_THAT(alone.err, EndsWith("experts.pack: damaged are 2 of 12 experts\n"));
}

TEST_F(PackModelTest, VerifyRefusesAPackOfAnotherModel) {
  ASSERT_EQ(Pack("packed").exit_code, 0);
  nlohmann::json config = nlohmann::json::parse(ReadFile(folder_ / "packed/config.json"));
  config["moe_intermediate_size"] = 32;
  folder_.Write("packed/config.json", config.dump());
  const ProgramResult result = Verify("packed");
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr("the pack's expert_width is 64; the model's is 32"));
  EXPECT_EQ(Verify("packed/experts.pack").exit_code, 0) << "the pack itself is whole";
  EXPECT_THAT(Verify("none").err, HasSubstr("No such file or directory"));
}

// Reads `file`, with one bit of it flipped, from memory.
PreadFunction Flipping(const std::string& file, uint64_t offset, int bit) {
  return [&file, offset, bit](int, void* to, size_t bytes, off_t from) {
    const auto begin = static_cast<uint64_t>(from);
    const size_t got = file.copy(static_cast<char*>(to), bytes, begin);
    if (offset >= begin && offset < begin + got) {
      static_cast<uint8_t*>(to)[offset - begin] ^= static_cast<uint8_t>(1 << bit);
    }
    return static_cast<ssize_t>(got);
  };
}

TEST(Verify, FindsEveryFlippedBitOfATinyPack) {
  const TempFolder folder;
  const std::string path = WriteTestPack(folder / "experts.pack",
                                         {.num_layers = 1, .num_experts = 2, .record_bytes = 100});
  const ExpertPack pack = ExpertPack::Open(path).value();
  EXPECT_THAT(Verify(path)->damages, SizeIs(0));
  const std::string file = ReadFile(path);
  for (uint64_t offset = 0; offset < file.size(); ++offset) {
    for (int bit = 0; bit < 8; ++bit) {
      const auto verification = Verify(path, Flipping(file, offset, bit));
      if (offset < pack.offset_of(0, 0)) {
        ASSERT_THAT(std::string(verification.status().message()),
                    HasSubstr("experts.pack: header: "))
            << offset << ", bit " << bit;
        continue;
      }
      ASSERT_TRUE(verification.ok()) << verification.status();
      ASSERT_THAT(verification->damages, SizeIs(1)) << offset << ", bit " << bit;
      ASSERT_THAT(std::string(verification->damages[0].message()),
                  HasSubstr(offset < pack.offset_of(0, 1) ? "expert 0/0: " : "expert 0/1: "));
    }
  }
}

}  // namespace
}  // namespace pregate
