#include "core/base/options.h"

#include <set>

#include "absl/strings/str_cat.h"
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

TEST(EngineFlags, TakeThePrototypesNamesOfCodecs) {
  EngineOptions options;
  EXPECT_TRUE(Set(options, "expert-codec", "int8_dynamic").ok());
  EXPECT_EQ(options.experts.codec, "int8");
  EXPECT_TRUE(Set(options, "expert-codec", "int4_grouped").ok());
  EXPECT_EQ(options.experts.codec, "int4");
  EXPECT_TRUE(Set(options, "expert-codec", "structured_sparse").ok());
  EXPECT_EQ(options.experts.codec, "sparse");
  EXPECT_EQ(Set(options, "expert-codec", "int2").message(),
            "'int2' is not one of none, int8, int4, sparse, auto, adaptive");
}

TEST(NumberFlag, TakesNumbersInItsRange) {
  double value = 0.5;
  const Flag flag = NumberFlag("share", "", 0, 1, value);
  EXPECT_TRUE(flag.set("0.25").ok());
  EXPECT_EQ(value, 0.25);
  for (const char* bad : {"1.01", "-0.1", "nan", "", "half"}) {
    EXPECT_EQ(flag.set(bad).message(), absl::StrCat("'", bad, "' is not a number from 0 to 1"));
  }
  EXPECT_EQ(value, 0.25);
}

TEST(BytesFlag, TakesSizes) {
  uint64_t bytes = 7;
  const Flag flag = BytesFlag("budget", "", bytes);
  EXPECT_FALSE(flag.set("many").ok());
  EXPECT_EQ(bytes, 7u);
  EXPECT_TRUE(flag.set("22GiB").ok());
  EXPECT_EQ(bytes, uint64_t{22} << 30);
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
