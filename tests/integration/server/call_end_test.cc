// How calls end otherwise than with an answer: cancelled, late, refused, failed.
#include <signal.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/process.h"
#include "tests/support/test_server.h"

namespace pregate {
namespace {

using std::chrono::hours;
using ::testing::HasSubstr;
using ::testing::Not;

// A server that runs one request at a time, stepped by the test.
class CallEndTest : public ::testing::Test {
 protected:
  static FakeEngineOptions Options(StepGate& gate) {
    FakeEngineOptions options;
    options.engine.max_running = 1;
    options.engine.max_queued = 1;
    options.runner.gate = &gate;
    return options;
  }
  // Before the server's destructor, which waits for the engine.
  void TearDown() override { gate_.Open(); }

  // The sequences of the steps so far, step by step.
  std::vector<uint64_t> Sequences() {
    std::vector<uint64_t> ids;
    const std::vector<FakeRunner::RecordedStep> steps = server_.runner().steps();
    for (const FakeRunner::RecordedStep& step : steps) {
      for (const FakeRunner::RecordedSequence& sequence : step) ids.push_back(sequence.sequence_id);
    }
    return ids;
  }

  StepGate gate_;
  TestServer server_{Options(gate_)};
};

TEST_F(CallEndTest, ACancelledStreamFreesItsSlotWithinAStep) {
  StreamingCall first(server_.inference(), Ask("first", 200));
  gate_.Release(2);
  first.ReadTokens(2);
  StreamingCall second(server_.inference(), Ask("second", 1));
  server_.AwaitLoad(1, 1);
  gate_.AwaitStep();  // the third step of the first
  first.Cancel();
  server_.log().Await("client gone method=Generate");
  gate_.Release(2);  // that step, and the next
  EXPECT_TRUE(second.ReadAll().status.ok());
  EXPECT_EQ(first.ReadAll().status.error_code(), grpc::StatusCode::CANCELLED);
  const std::vector<uint64_t> sequences = Sequences();
  ASSERT_EQ(sequences.size(), 4u);
  EXPECT_EQ(sequences[2], sequences[0]);
  EXPECT_NE(sequences[3], sequences[0]) << "the step after the cancel is the other request's";
  EXPECT_EQ(server_.Metric("pregate_finished_total{reason=\"cancelled\"}"), 1);
}

TEST_F(CallEndTest, AClientThatIsKilledFreesItsSlotWithinAStep) {
  Program client({BuiltProgram("pregate"),
                  "--server",
                  server_.address(),
                  "generate",
                  "--max-tokens",
                  "200",
                  "hello"});
  gate_.Release(2);
  gate_.AwaitStep();
  client.Signal(SIGKILL);
  server_.log().Await("client gone method=Generate");
  StreamingCall second(server_.inference(), Ask("second", 1));
  server_.AwaitLoad(1, 1);
  gate_.Release(2);
  EXPECT_TRUE(second.ReadAll().status.ok());
  EXPECT_EQ(server_.runner().steps().size(), 4u);
}

TEST_F(CallEndTest, ACancelInTheQueueCostsNoStep) {
  StreamingCall first(server_.inference(), Ask("first", 2));
  server_.AwaitLoad(1, 0);
  gate_.AwaitStep();
  StreamingCall second(server_.inference(), Ask("second", 2));
  server_.AwaitLoad(1, 1);
  second.Cancel();
  server_.log().Await("client gone method=Generate");
  gate_.Open();
  EXPECT_TRUE(first.ReadAll().status.ok());
  EXPECT_EQ(second.ReadAll().status.error_code(), grpc::StatusCode::CANCELLED);
  server_.AwaitLoad(0, 0);
  EXPECT_EQ(server_.runner().steps().size(), 2u);
}

TEST_F(CallEndTest, ACancelledCompleteFreesItsSlotToo) {
  grpc::ClientContext context;
  grpc::Status status;
  v1::CompleteResponse response;
  const v1::GenerateRequest request = Ask("first", 200);
  std::optional<Thread> client;
  client.emplace("client",
                 [&] { status = server_.inference().Complete(&context, request, &response); });
  server_.AwaitLoad(1, 0);
  gate_.AwaitStep();
  context.TryCancel();
  server_.log().Await("client gone method=Complete");
  gate_.Release();
  client.reset();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::CANCELLED);
  server_.AwaitLoad(0, 0);
  EXPECT_EQ(server_.runner().steps().size(), 1u);
}

// A Generate with a deadline that the engine's clock can pass while the real one does not.
class LateCall {
 public:
  LateCall(TestServer& server, const v1::GenerateRequest& request) {
    context_.set_deadline(std::chrono::system_clock::now() + hours(1));
    reader_ = server.inference().Generate(&context_, request);
  }
  // The number of tokens and whether Finished came, and the status.
  grpc::Status ReadAll(int& tokens, bool& finished) {
    v1::GenerateResponse event;
    while (reader_->Read(&event)) {
      tokens += event.delta().token_ids_size();
      finished = finished || event.has_finished();
    }
    return reader_->Finish();
  }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>> reader_;
};

TEST_F(CallEndTest, ADeadlineThatPassesInTheQueueCostsNoStep) {
  StreamingCall first(server_.inference(), Ask("first", 3));
  server_.AwaitLoad(1, 0);
  gate_.AwaitStep();
  LateCall late(server_, Ask("late", 3));
  server_.AwaitLoad(1, 1);
  server_.fake().clock().Advance(hours(2));
  gate_.Open();
  int tokens = 0;
  bool finished = false;
  const grpc::Status status = late.ReadAll(tokens, finished);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_EQ(DetailsOf(status).reason, "DEADLINE_EXCEEDED");
  EXPECT_EQ(DetailsOf(status).domain, "pregate");
  EXPECT_EQ(tokens, 0);
  EXPECT_FALSE(finished);
  EXPECT_TRUE(first.ReadAll().status.ok()) << "it had none";
  EXPECT_EQ(server_.runner().steps().size(), 3u);
}

TEST_F(CallEndTest, ADeadlineThatPassesBetweenTokensIsNoLength) {
  LateCall late(server_, Ask("late", 100));
  gate_.Release(2);
  gate_.AwaitStep();
  server_.fake().clock().Advance(hours(2));
  gate_.Open();
  int tokens = 0;
  bool finished = false;
  const grpc::Status status = late.ReadAll(tokens, finished);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_EQ(DetailsOf(status).reason, "DEADLINE_EXCEEDED");
  EXPECT_GE(tokens, 2);
  EXPECT_LE(tokens, 3);
  EXPECT_FALSE(finished);
  EXPECT_EQ(server_.Metric("pregate_finished_total{reason=\"deadline\"}"), 1);
  EXPECT_EQ(server_.Metric("pregate_finished_total{reason=\"length\"}"), 0);
}

TEST_F(CallEndTest, AFullQueueSaysWhenToComeBack) {
  StreamingCall running(server_.inference(), Ask("running", 2));
  server_.AwaitLoad(1, 0);
  StreamingCall waiting(server_.inference(), Ask("waiting", 2));
  server_.AwaitLoad(1, 1);
  const Streamed refused = Generate(server_, Ask("refused", 2));
  EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(DetailsOf(refused.status).reason, "QUEUE_FULL");
  EXPECT_TRUE(DetailsOf(refused.status).has_retry);
  gate_.Open();
  EXPECT_TRUE(running.ReadAll().status.ok());
  EXPECT_TRUE(waiting.ReadAll().status.ok());
  EXPECT_EQ(server_.Metric("pregate_requests_rejected_total{reason=\"queue_full\"}"), 1);
}

TEST(FaultTest, AFaultIsTheRequestsAlone) {
  FakeEngineOptions options;
  options.runner.before_token = [](const SequenceStep& step) {
    return step.first_position == 9 ? absl::InternalError("expert 1/2: NaN") : absl::OkStatus();
  };
  TestServer server(options);
  const Streamed failed = Generate(server, Ask("abcdefg", 50));  // 7 tokens and 2 more: position 9
  EXPECT_EQ(failed.status.error_code(), grpc::StatusCode::INTERNAL);
  EXPECT_EQ(failed.status.error_message(), "expert 1/2: NaN");
  EXPECT_EQ(DetailsOf(failed.status).reason, "INTERNAL");
  EXPECT_FALSE(failed.choice.has_finished()) << "a fault is no end of the text";
  EXPECT_GT(failed.choice.token_ids_size(), 0) << "what was generated before it is given";
  EXPECT_TRUE(Generate(server, Ask("ab", 3)).status.ok());
  EXPECT_THAT(server.log().all(), HasSubstr("request failed"));
}

TEST(FaultTest, ALostDeviceEndsEveryStreamAndTheHealth) {
  FakeEngineOptions options;
  options.runner.before_step = [](const StepPlan&) { return absl::DataLossError("device lost"); };
  TestServer server(options);
  const Streamed failed = Generate(server, Ask("the", 5));
  EXPECT_EQ(failed.status.error_code(), grpc::StatusCode::INTERNAL);
  EXPECT_FALSE(failed.choice.has_finished());
  EXPECT_EQ(server.server().CheckHealth().code(), absl::StatusCode::kInternal);
}

TEST(PrivacyTest, TheLogHoldsNoTextOfTheUsers) {
  TestServer server;
  v1::GenerateRequest request = Ask("a very private prompt", 5);
  request.set_request_id("id\nforged line");
  const Streamed streamed = Generate(server, request);
  ASSERT_TRUE(streamed.status.ok());
  request.mutable_sampling()->set_top_p(2);
  Generate(server, request);
  const std::string log = server.log().all();
  EXPECT_THAT(log, HasSubstr("request_id=id?forged?line"));
  EXPECT_THAT(log, Not(HasSubstr("private")));
  EXPECT_THAT(log, Not(HasSubstr(streamed.choice.text())));
}

}  // namespace
}  // namespace pregate
