// From start to stop: ports, signals, draining.
#include <signal.h>

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/pregated/daemon.h"

namespace pregate {
namespace {

using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::Not;

constexpr uint32_t kLong = 1000;  // tokens; nearly the context of the shipped models

std::string LastLine(const std::string& text) {
  const size_t end = text.rfind('\n');
  const size_t begin = text.rfind('\n', end - 1);
  return text.substr(begin == std::string::npos ? 0 : begin + 1);
}

// A long stream that sees SIGTERM behind its first token.
Streamed FinishAfterSigterm(Daemon& daemon) {
  Stream stream(daemon, Ask("The old man", kLong));
  EXPECT_TRUE(stream.Read());
  daemon.program().Signal(SIGTERM);
  return stream.Finish();
}

TEST(LifecycleTest, StopsWithExitCode0) {
  for (const int signal : {SIGTERM, SIGINT}) {
    Daemon daemon(ShippedModel("switch-mini"));
    daemon.program().Signal(signal);
    const ProgramResult result = daemon.Wait();
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_EQ(result.out, "");
    EXPECT_THAT(result.err, HasSubstr("INFO stopped"));
  }
}

TEST(LifecycleTest, ASecondServerOnAPortFailsWithAClearLine) {
  const Daemon first(ShippedModel("switch-mini"));
  for (const auto& [flag, address] :
       {std::pair("--listen", first.address()), std::pair("--http-listen", first.http_address())}) {
    const ProgramResult second =
        RunProgram(PregatedArguments(ShippedModel("switch-mini"), {flag, address}));
    EXPECT_EQ(second.exit_code, 1);
    EXPECT_THAT(LastLine(second.err),
                MatchesRegex(absl::StrCat("pregated: cannot listen on ", address, "[^\n]*\n")));
  }
}

TEST(LifecycleTest, AStreamThatRunsAtSigtermIsFinished) {
  Daemon daemon(ShippedModel("switch-mini"));
  const Streamed streamed = FinishAfterSigterm(daemon);
  EXPECT_TRUE(streamed.status.ok()) << streamed.status.error_message();
  EXPECT_EQ(streamed.choice.token_ids_size(), kLong);
  EXPECT_EQ(streamed.choice.finished().reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(streamed.summary.usage().completion_tokens(), kLong);
  EXPECT_EQ(daemon.Wait().exit_code, 0);
}

TEST(LifecycleTest, WhatRunsAtTheDrainTimeoutIsCut) {
  Daemon daemon(ShippedModel("switch-mini"), {"--drain-timeout", "0s"});
  const Streamed streamed = FinishAfterSigterm(daemon);
  EXPECT_EQ(streamed.status.error_code(), grpc::StatusCode::UNAVAILABLE)
      << streamed.choice.token_ids_size();
  EXPECT_EQ(streamed.choice.finished().reason(), v1::FINISH_REASON_UNSPECIFIED);
  EXPECT_EQ(daemon.Wait().exit_code, 0);
}

TEST(LifecycleTest, ASecondSignalStopsAtOnce) {
  Daemon daemon(ShippedModel("switch-mini"));
  // More than the connection takes in: the drain waits for this reader.
  v1::GenerateRequest request = Ask("The old man", kLong);
  request.mutable_sampling()->set_logprobs(20);
  Stream unread(daemon, request);
  ASSERT_TRUE(unread.Read());
  daemon.program().Signal(SIGTERM);
  ASSERT_THAT(daemon.program().WaitForErr("INFO draining"), HasSubstr("INFO draining"));
  daemon.program().Signal(SIGTERM);
  const ProgramResult result = daemon.Wait();
  EXPECT_EQ(result.exit_code, 1) << result.err;
  EXPECT_THAT(result.err, HasSubstr("second signal"));
}

TEST(LifecycleTest, TheLogHoldsNoText) {
  Daemon daemon(ShippedModel("switch-mini"), {"--log-level", "debug"});
  v1::GenerateRequest request = Ask("Confidential prompt", 20);
  request.mutable_stopping()->add_stop("unmistakable");
  const Streamed streamed = Stream(daemon, request).Finish();
  ASSERT_TRUE(streamed.status.ok()) << streamed.status.error_message();
  daemon.program().Signal(SIGTERM);
  const ProgramResult result = daemon.Wait();
  EXPECT_THAT(result.err, HasSubstr("request ended"));
  EXPECT_THAT(result.err, Not(HasSubstr("Confidential")));
  EXPECT_THAT(result.err, Not(HasSubstr("unmistakable")));
  EXPECT_THAT(result.err, Not(HasSubstr(streamed.choice.text().substr(0, 10))));
}

}  // namespace
}  // namespace pregate
