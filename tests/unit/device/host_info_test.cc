#include "core/device/host_info.h"

#include "gtest/gtest.h"

namespace pregate {
namespace {

TEST(HostInfo, DescribesTheMachine) {
  const HostInfo host = ReadHostInfo();
  EXPECT_NE(host.cpu, "");
  EXPECT_EQ(host.cpu.find('\n'), std::string::npos);
  EXPECT_GE(host.num_cpus, 1u);
  EXPECT_EQ(host.memory_bytes, HostMemoryBytes());
  EXPECT_GT(host.memory_bytes, uint64_t{1} << 20);
}

}  // namespace
}  // namespace pregate
