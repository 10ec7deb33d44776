// The disk fails under a running server: requests that need what cannot be read fail and say so,
// the others get the right tokens, and when the disk is well again so is the server.
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "core/storage/expert_pack.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/pregated/daemon.h"
#include "tests/support/temp_folder.h"

namespace pregate {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr uint32_t kTokens = 24;
const char* const kPrompts[] = {"The Linux kernel is",
                                "In the beginning",
                                "To install the package,",
                                "A list of",
                                "Chapter 1."};

class DiskFaultTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const ProgramResult packed =
        RunProgram({BuiltProgram("pregate-model"), "pack", ShippedModel("switch-mini"), model()});
    ASSERT_EQ(packed.exit_code, 0) << packed.err;
    absl::StatusOr<ExpertPack> pack = ExpertPack::Open(pack_path());
    ASSERT_TRUE(pack.ok()) << pack.status();
    stride_ = pack->stride_bytes();
    num_experts_ = pack->header().num_experts;
    first_ = pack->offset_of(0, 0);
    bytes_ = ReadFile(pack_path());
    // Neither the host nor the slots hold more than a few experts: every step reads from disk.
    daemon_ = std::make_unique<Daemon>(model(),
                                       std::vector<std::string>{"--host-memory-budget",
                                                                absl::StrCat(4 * stride_),
                                                                "--expert-capacity",
                                                                "3",
                                                                "--speculation",
                                                                "none"});
    for (const char* prompt : kPrompts) {
      const Streamed answer = Generate(prompt);
      ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
      expected_.push_back(answer.choice.text());
      EXPECT_GT(answer.summary.expert().misses(), 0u);
    }
  }

  std::string model() const { return folder_ / "packed"; }
  std::string pack_path() const { return absl::StrCat(model(), "/experts.pack"); }

  // Writes into the file in place, as a failing disk would change it.
  void Overwrite(uint64_t offset, const std::string& bytes) {
    std::fstream file(pack_path(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(offset));
    file << bytes << std::flush;
    ASSERT_TRUE(file.good());
  }

  // Flips a bit in every expert of `layer`.
  void FlipBits(uint32_t layer) {
    for (uint32_t expert = 0; expert < num_experts_; ++expert) {
      const uint64_t offset = first_ + (uint64_t{layer} * num_experts_ + expert) * stride_ + 1000;
      Overwrite(offset, std::string(1, static_cast<char>(bytes_[offset] ^ 0x10)));
    }
  }

  Streamed Generate(const char* prompt) { return Stream(*daemon_, Ask(prompt, kTokens)).Finish(); }

  // Every request fails with a status that names an expert of `layer` and has sent nothing wrong.
  void ExpectFailures(const std::string& expert, const std::string& reason) {
    for (size_t i = 0; i < std::size(kPrompts); ++i) {
      const Streamed answer = Generate(kPrompts[i]);
      EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::INTERNAL);
      EXPECT_THAT(answer.status.error_message(), AllOf(HasSubstr(expert), HasSubstr(reason)));
      EXPECT_EQ(expected_[i].rfind(answer.choice.text(), 0), 0u)
          << "what was sent before is right: " << answer.choice.text();
    }
  }

  void ExpectRightAnswers() {
    for (size_t i = 0; i < std::size(kPrompts); ++i) {
      const Streamed answer = Generate(kPrompts[i]);
      EXPECT_TRUE(answer.status.ok()) << answer.status.error_message();
      EXPECT_EQ(answer.choice.text(), expected_[i]);
    }
  }

  TempFolder folder_;
  std::string bytes_;  // of the pack as it was written
  uint64_t stride_ = 0;
  uint64_t first_ = 0;
  uint32_t num_experts_ = 0;
  std::unique_ptr<Daemon> daemon_;
  std::vector<std::string> expected_;
};

TEST_F(DiskFaultTest, FlippedBitsAreFoundAndNamedAndHeal) {
  FlipBits(3);
  ExpectFailures("expert 3/", "checksum");
  Overwrite(0, bytes_);
  ExpectRightAnswers();
}

TEST_F(DiskFaultTest, ShortReadsAreFoundAndHeal) {
  std::filesystem::resize_file(pack_path(), first_ + uint64_t{2} * num_experts_ * stride_);
  ExpectFailures("expert 2/", "read ");
  Overwrite(0, bytes_);
  ExpectRightAnswers();
}

TEST_F(DiskFaultTest, OneBadExpertFailsOnlyThoseWhoNeedIt) {
  Overwrite(first_ + uint64_t{5} * num_experts_ * stride_ + 7, "damaged");
  size_t failed = 0;
  for (size_t i = 0; i < std::size(kPrompts); ++i) {
    const Streamed answer = Generate(kPrompts[i]);
    if (answer.status.ok()) {
      EXPECT_EQ(answer.choice.text(), expected_[i]);
      continue;
    }
    ++failed;
    EXPECT_THAT(answer.status.error_message(), HasSubstr("expert 5/0"));
  }
  RecordProperty("failed", static_cast<int>(failed));
  Overwrite(0, bytes_);
  ExpectRightAnswers();
}

}  // namespace
}  // namespace pregate
