#include "core/base/options.h"

#include <set>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace pregate {
namespace {

absl::Status Set(EngineOptions& options, const std::string& name, const std::string& value) {
  for (const Flag& flag : EngineFlags(options)) {
    if (flag.name == name) return flag.set(value);
  }
  return absl::NotFoundError(name);
}

TEST(EngineFlags, StoreWhatTheyAreGiven) {
  EngineOptions options;
  EXPECT_TRUE(Set(options, "model", "/models/m").ok());
  EXPECT_TRUE(Set(options, "max-running", "7").ok());
  EXPECT_TRUE(Set(options, "dtype", "bfloat16").ok());
  EXPECT_TRUE(Set(options, "device", "cuda:1").ok());
  EXPECT_EQ(options.model, "/models/m");
  EXPECT_EQ(options.max_running, 7u);
  EXPECT_EQ(options.dtype, "bfloat16");
  EXPECT_EQ(options.device, "cuda:1");
}

TEST(EngineFlags, SayWhatIsAllowed) {
  EngineOptions options;
  EXPECT_EQ(Set(options, "max-running", "0").message(), "'0' is not a whole number from 1 to 4096");
  EXPECT_EQ(Set(options, "dtype", "fp8").message(), "'fp8' is not one of auto, float32, bfloat16");
  EXPECT_EQ(Set(options, "device", "cuda:x").message(),
            "'cuda:x' is not one of auto, cpu, cuda, cuda:N");
  EXPECT_EQ(options.max_running, EngineOptions().max_running) << "a refused value changes nothing";
}

TEST(EngineFlags, HaveDistinctNames) {
  EngineOptions options;
  std::set<std::string> names;
  for (const Flag& flag : EngineFlags(options))
    EXPECT_TRUE(names.insert(flag.name).second) << flag.name;
}

TEST(SwitchFlag, TakesTrueAndFalse) {
  bool value = false;
  const Flag flag = SwitchFlag("insecure", "", value);
  EXPECT_TRUE(flag.set("true").ok());
  EXPECT_TRUE(value);
  EXPECT_FALSE(flag.set("yes").ok());
  EXPECT_TRUE(value);
}

}  // namespace
}  // namespace pregate
