#include "core/device/slab.h"

#include <cstring>
#include <fstream>

#include "core/device/cpu_backend.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace pregate {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

// Pages of this process that are in memory, in bytes.
uint64_t ResidentBytes() {
  uint64_t total = 0;
  uint64_t resident = 0;
  std::ifstream("/proc/self/statm") >> total >> resident;
  return resident * 4096;
}

std::unique_ptr<Slab> Make(Backend& backend, uint64_t slot_bytes, uint32_t max_slots) {
  absl::StatusOr<std::unique_ptr<Slab>> slab = Slab::Create(backend, slot_bytes, max_slots);
  EXPECT_TRUE(slab.ok()) << slab.status();
  return *std::move(slab);
}

TEST(Slab, SlotsLieOneStrideApartOnPages) {
  CpuBackend backend;
  const auto slab = Make(backend, 5000, 10);
  ASSERT_TRUE(slab->Resize(10).ok());
  EXPECT_EQ(slab->stride_bytes(), 8192u);
  for (uint32_t i = 0; i < 10; ++i) {
    EXPECT_EQ(slab->slot(i), slab->base() + i * 8192);
    std::memset(slab->slot(i), static_cast<int>(i), 5000);
  }
  EXPECT_EQ(slab->slot(9)[4999], std::byte{9});
}

TEST(Slab, KeepsWhatStaysWhenItIsResized) {
  CpuBackend backend;
  const auto slab = Make(backend, kMiB, 40);
  ASSERT_TRUE(slab->Resize(3).ok());
  std::byte* const base = slab->base();
  for (uint32_t i = 0; i < 3; ++i) std::memset(slab->slot(i), static_cast<int>(i + 1), kMiB);
  ASSERT_TRUE(slab->Resize(40).ok());
  std::memset(slab->slot(39), 40, kMiB);
  ASSERT_TRUE(slab->Resize(2).ok());
  EXPECT_EQ(slab->base(), base);
  EXPECT_EQ(slab->slot(1)[kMiB - 1], std::byte{2});
  EXPECT_EQ(slab->num_slots(), 2u);
}

TEST(Slab, GivesMemoryBack) {
  CpuBackend backend;
  const auto slab = Make(backend, kMiB, 64);
  ASSERT_TRUE(slab->Resize(64).ok());
  std::memset(slab->base(), 1, 64 * kMiB);
  const uint64_t full = ResidentBytes();
  ASSERT_TRUE(slab->Resize(4).ok());
  EXPECT_EQ(slab->committed_bytes(), 4 * kMiB);
  EXPECT_LE(ResidentBytes() + 55 * kMiB, full) << "the system has it again";
}

TEST(Slab, AGrowthThatFailsChangesNothing) {
  CpuBackend backend;
  const uint64_t all = backend.memory().total_bytes;
  const auto slab = Make(backend, all, 4);
  EXPECT_EQ(slab->Resize(4).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(slab->num_slots(), 0u);
  EXPECT_EQ(slab->committed_bytes(), 0u);
}

}  // namespace
}  // namespace pregate
