#include "client/client.h"

#include "gtest/gtest.h"

namespace pregate {
namespace {

TEST(CheckServerAddressTest, TakesHostAndPort) {
  for (const char* const valid :
       {"127.0.0.1:50051", "localhost:1", "gpu-1.example:65535", "[::1]:50051"}) {
    EXPECT_TRUE(CheckServerAddress(valid).ok()) << valid;
  }
}

TEST(CheckServerAddressTest, RefusesTheRest) {
  for (const char* const invalid : {"",
                                    ":",
                                    "localhost",
                                    "localhost:",
                                    ":50051",
                                    "a:0",
                                    "a:65536",
                                    "a:-1",
                                    "a:http",
                                    "::1:5"}) {
    EXPECT_EQ(CheckServerAddress(invalid).code(), absl::StatusCode::kInvalidArgument) << invalid;
  }
}

TEST(CancellationTest, IsRememberedUntilReset) {
  Cancellation cancellation;
  EXPECT_FALSE(cancellation.cancelled());
  EXPECT_FALSE(cancellation.Cancel());  // nothing runs
  EXPECT_TRUE(cancellation.cancelled());
  cancellation.Reset();
  EXPECT_FALSE(cancellation.cancelled());
}

// Nothing listens on port 1, and nothing has to: the call ends before it begins.
TEST(CancellationTest, EndsTheNextCall) {
  Client client({.server = "127.0.0.1:1"});
  Cancellation cancellation;
  cancellation.Cancel();
  const absl::Status generated = client.Generate(
      {}, cancellation, [](const v1::GenerateResponse&) { return absl::OkStatus(); });
  EXPECT_EQ(generated, absl::CancelledError("interrupted"));
  EXPECT_EQ(client.WaitUntilServing("", absl::InfiniteDuration(), cancellation),
            absl::CancelledError("interrupted"));
}

}  // namespace
}  // namespace pregate
