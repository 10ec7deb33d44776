// The contract of backends on a GPU, and what a GPU alone has.
#include "core/device/slab.h"
#include "tests/contract/backend_suite.h"
#include "tests/gpu/gpu.h"

namespace pregate {
namespace {

INSTANTIATE_TEST_SUITE_P(Gpu, BackendTest, testing::Values(BackendCase{"Cuda", MakeGpu}), NameOf);

TEST(CudaBackend, SaysWhatIsThereWhenAskedForMore) {
  if (MakeGpu() == nullptr) GTEST_SKIP() << CreateCudaBackend(0).status();
  const absl::Status status = CreateCudaBackend(1000).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kOutOfRange);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("cuda:1000"));
  EXPECT_EQ(CreateCudaBackend(-1).status().code(), absl::StatusCode::kOutOfRange);
}

TEST(CudaBackend, GivesDecommittedMemoryBackToTheDevice) {
  const std::unique_ptr<Backend> gpu = MakeGpu();
  if (gpu == nullptr) GTEST_SKIP() << CreateCudaBackend(0).status();
  constexpr uint64_t kSlot = uint64_t{8} << 20;
  auto slab = Slab::Create(*gpu, kSlot, 64);
  ASSERT_TRUE(slab.ok()) << slab.status();
  const uint64_t before = gpu->memory().free_bytes;
  ASSERT_TRUE((*slab)->Resize(64).ok());
  EXPECT_LE(gpu->memory().free_bytes, before - 64 * kSlot);
  ASSERT_TRUE((*slab)->Resize(16).ok());
  EXPECT_GE(gpu->memory().free_bytes, before - 17 * kSlot);
  ASSERT_TRUE((*slab)->Resize(0).ok());
  EXPECT_GE(gpu->memory().free_bytes, before - kSlot);
}

TEST(CudaBackend, ACopyThatCannotBeIsToldByItsEventAndItsStream) {
  const std::unique_ptr<Backend> gpu = MakeGpu();
  if (gpu == nullptr) GTEST_SKIP() << CreateCudaBackend(0).status();
  const absl::StatusOr<Buffer> from = gpu->Allocate(MemoryKind::kDevice, 4096);
  const absl::StatusOr<Buffer> to = gpu->Allocate(MemoryKind::kDevice, 4096);
  ASSERT_TRUE(from.ok() && to.ok());
  auto stream = gpu->CreateStream("copies");
  ASSERT_TRUE(stream.ok()) << stream.status();
  (*stream)->CopyAsync(to->data(), from->data(), size_t{1} << 40);
  const Event event = (*stream)->Record();
  EXPECT_EQ(event.BlockUntilReady().code(), absl::StatusCode::kInternal);
  EXPECT_TRUE(event.Ready());
  EXPECT_EQ((*stream)->Synchronize().code(), absl::StatusCode::kInternal);
  EXPECT_TRUE((*stream)->Synchronize().ok()) << "told once";
}

}  // namespace
}  // namespace pregate
