#include "client/output.h"

#include "gtest/gtest.h"
#include "pregate/v1/inference.pb.h"

namespace pregate {
namespace {

TEST(ToJsonTest, KeepsNamesAndZeros) {
  v1::GenerateResponse event;
  event.mutable_delta()->set_text("\"é\"\n");
  EXPECT_EQ(ToJson(event),
            "{\"delta\":{\"index\":0,\"token_ids\":[],\"text\":\"\\\"é\\\"\\n\",\"logprobs\":[]}}");
  event.mutable_finished()->set_stop_token_id(0);
  EXPECT_EQ(ToJson(event),
            "{\"finished\":{\"index\":0,\"reason\":\"FINISH_REASON_UNSPECIFIED\",\"stop_token_id\":"
            "0}}");
}

TEST(FormatTableTest, AlignsColumnsWithoutTrailingSpaces) {
  EXPECT_EQ(FormatTable({{"NAME", "N"}, {"long-name", "1"}, {"x", ""}}),
            "NAME       N\n"
            "long-name  1\n"
            "x\n");
  EXPECT_EQ(FormatTable({}), "");
}

TEST(OutputTest, TellsWhyItCannotWrite) {
  std::FILE* const full = std::fopen("/dev/full", "w");
  ASSERT_NE(full, nullptr);
  EXPECT_EQ(Output(full).Write("text"),
            absl::UnavailableError("cannot write the result: No space left on device"));
  std::fclose(full);
}

}  // namespace
}  // namespace pregate
