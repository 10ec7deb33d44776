#include "core/device/open_backend.h"

#include "core/device/cuda_backend.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace pregate {
namespace {

TEST(OpenBackend, OpensTheCpuByNameAndWhereNothingElseIs) {
  EXPECT_TRUE(OpenBackend("cpu", std::nullopt).ok());
  EXPECT_TRUE(OpenBackend("auto", std::nullopt).ok());
  EXPECT_TRUE(OpenBackend("auto", SimulatedLink{.bytes_per_second = 1e9}).ok());
}

TEST(OpenBackend, SaysWhyThereIsNoGpu) {
  const absl::Status gpu = CreateCudaBackend(0).status();
  if (gpu.ok()) GTEST_SKIP() << "there is one";
  EXPECT_EQ(gpu.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(OpenBackend("cuda", std::nullopt).status(), gpu);
  EXPECT_EQ(OpenBackend("cuda:0", std::nullopt).status(), gpu);
}

TEST(OpenBackend, RefusesOtherNamesAndALinkForAGpu) {
  for (const char* const name : {"", "gpu", "cuda:", "cuda:-1", "cuda:x", "cuda1"}) {
    const absl::Status status = OpenBackend(name, std::nullopt).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr("auto, cpu, cuda, cuda:N"));
  }
  const absl::Status status = OpenBackend("cuda", SimulatedLink{}).status();
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("paces the CPU's copies"));
}

}  // namespace
}  // namespace pregate
