#include "core/base/bytes.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace pregate {
namespace {

TEST(ParseBytes, ReadsDecimalAndBinaryUnits) {
  EXPECT_EQ(*ParseBytes("4096"), 4096u);
  EXPECT_EQ(*ParseBytes("3 B"), 3u);
  EXPECT_EQ(*ParseBytes("2kB"), 2000u);
  EXPECT_EQ(*ParseBytes("22GiB"), 22ull << 30);
  EXPECT_EQ(*ParseBytes("1.5MiB"), 3ull << 19);
}

TEST(ParseBytes, RefusesWhatIsNoSizeAndSaysHowToWriteOne) {
  for (const char* text : {"", "GiB", "-1", "1.2.3", "10 gib", "1e30TiB", "99999999999TiB"}) {
    const auto bytes = ParseBytes(text);
    ASSERT_FALSE(bytes.ok()) << text;
    EXPECT_THAT(std::string(bytes.status().message()), testing::HasSubstr("such as 22GiB"));
  }
}

TEST(FormatBytes, PicksTheUnitThatLeavesAtLeastOne) {
  EXPECT_EQ(FormatBytes(17), "17 B");
  EXPECT_EQ(FormatBytes(1024), "1.0 KiB");
  EXPECT_EQ(FormatBytes(22ull << 30), "22.0 GiB");
}

}  // namespace
}  // namespace pregate
