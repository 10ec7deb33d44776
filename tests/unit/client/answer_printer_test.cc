#include "client/answer_printer.h"

#include <chrono>
#include <cstdio>
#include <string>

#include "gmock/gmock.h"
#include "tests/support/fake_clock.h"
#include "tests/support/temp_folder.h"

namespace pregate {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

v1::GenerateResponse Delta(uint32_t token_id, const std::string& text) {
  v1::GenerateResponse event;
  event.mutable_delta()->add_token_ids(token_id);
  event.mutable_delta()->set_text(text);
  return event;
}

class AnswerPrinterTest : public ::testing::Test {
 protected:
  ~AnswerPrinterTest() override { std::fclose(file_); }

  std::string Written() const { return ReadFile(folder_ / "out"); }

  const TempFolder folder_;
  std::FILE* const file_ = std::fopen((folder_ / "out").c_str(), "w");
  Output out_{file_};
  FakeClock clock_;
};

TEST_F(AnswerPrinterTest, WritesTextAtOnceAndEndsItsLastLine) {
  AnswerPrinter answer(AnswerPrinter::Format::kText, out_, clock_);
  ASSERT_TRUE(answer.Show(Delta(1, "Hel")).ok());
  EXPECT_EQ(Written(), "Hel");
  ASSERT_TRUE(answer.Show(Delta(2, "")).ok());
  ASSERT_TRUE(answer.Show(Delta(3, "lo")).ok());
  ASSERT_TRUE(answer.EndLine().ok());
  EXPECT_EQ(Written(), "Hello\n");
  EXPECT_EQ(answer.text(), "Hello");
}

TEST_F(AnswerPrinterTest, AddsNoNewlineToNoneOrToOne) {
  AnswerPrinter empty(AnswerPrinter::Format::kText, out_, clock_);
  ASSERT_TRUE(empty.EndLine().ok());
  EXPECT_EQ(Written(), "");

  AnswerPrinter ended(AnswerPrinter::Format::kText, out_, clock_);
  ASSERT_TRUE(ended.Show(Delta(1, "line\n")).ok());
  ASSERT_TRUE(ended.EndLine().ok());
  EXPECT_EQ(Written(), "line\n");
}

TEST_F(AnswerPrinterTest, TimesTheFirstAndTheLastToken) {
  AnswerPrinter answer(AnswerPrinter::Format::kText, out_, clock_);
  v1::GenerateResponse accepted;
  accepted.mutable_accepted()->set_queue_position(4);
  clock_.Advance(std::chrono::milliseconds(100));
  ASSERT_TRUE(answer.Show(accepted).ok());
  clock_.Advance(std::chrono::milliseconds(400));
  ASSERT_TRUE(answer.Show(Delta(1, "")).ok());  // its text comes later
  clock_.Advance(std::chrono::milliseconds(1000));
  ASSERT_TRUE(answer.Show(Delta(2, "é")).ok());
  clock_.Advance(std::chrono::milliseconds(1000));
  v1::GenerateResponse rest;  // text without a token
  rest.mutable_delta()->set_text("!");
  ASSERT_TRUE(answer.Show(rest).ok());
  EXPECT_DOUBLE_EQ(answer.report().first_token_seconds, 0.5);
  EXPECT_DOUBLE_EQ(answer.report().last_token_seconds, 1.5);
}

TEST_F(AnswerPrinterTest, KeepsLogprobs) {
  AnswerPrinter answer(AnswerPrinter::Format::kJson, out_, clock_);
  v1::GenerateResponse event = Delta(1, "a");
  event.mutable_delta()->add_logprobs()->set_token_id(1);
  ASSERT_TRUE(answer.Show(event).ok());
  ASSERT_TRUE(answer.Show(event).ok());
  EXPECT_THAT(answer.logprobs(), SizeIs(2));
}

GenerationReport ReportOf(uint32_t completion_tokens) {
  GenerationReport report;
  report.summary.mutable_usage()->set_prompt_tokens(12);
  report.summary.mutable_usage()->set_completion_tokens(completion_tokens);
  report.summary.mutable_timings()->set_queue_seconds(0.001);
  report.summary.mutable_timings()->set_prefill_seconds(0.02);
  report.summary.mutable_timings()->set_decode_seconds(2);
  report.finished.set_reason(v1::FINISH_REASON_LENGTH);
  report.first_token_seconds = 0.5;
  report.last_token_seconds = 2.5;
  return report;
}

TEST(FormatReportTest, CountsTheRateAfterTheFirstToken) {
  EXPECT_EQ(FormatReport(ReportOf(21)),
            "prompt 12 tokens, answer 21 tokens, 10.0 tokens/s, stopped at the token limit\n"
            "first token 500.0 ms; queue 1.0 ms, prefill 20.0 ms, decode 2000.0 ms\n");
  EXPECT_THAT(FormatReport(ReportOf(1)), Not(HasSubstr("tokens/s")));
}

TEST(FormatReportTest, SaysWhereItStopped) {
  GenerationReport report = ReportOf(2);
  report.finished.set_reason(v1::FINISH_REASON_STOP);
  EXPECT_THAT(FormatReport(report), HasSubstr(", stopped\n"));
  report.finished.set_stop_token_id(2);
  EXPECT_THAT(FormatReport(report), HasSubstr(", stopped at token 2\n"));
  report.finished.set_stop("\n\n");
  EXPECT_THAT(FormatReport(report), HasSubstr(", stopped at \"\\n\\n\"\n"));
}

TEST(FormatReportTest, TellsOfExpertsOnlyWhenThereWereLookUps) {
  GenerationReport report = ReportOf(2);
  EXPECT_THAT(FormatReport(report), Not(HasSubstr("experts")));
  report.summary.mutable_expert()->set_hits(9);
  report.summary.mutable_expert()->set_misses(1);
  report.summary.mutable_expert()->set_loaded_bytes(3 << 20);
  EXPECT_THAT(FormatReport(report),
              HasSubstr("experts 9 hits, 0 late, 1 misses, 3.0 MiB loaded, stalled 0.0 ms\n"));
}

TEST(FormatLogprobTest, ListsTheMostLikely) {
  v1::TokenLogprob logprob;
  logprob.set_token_id(42);
  logprob.set_logprob(-0.125);
  EXPECT_EQ(FormatLogprob(logprob), "token 42: logprob -0.1250");
  for (const uint32_t id : {7, 8}) {
    v1::TokenLogprob* const top = logprob.add_top();
    top->set_token_id(id);
    top->set_logprob(-1);
  }
  EXPECT_EQ(FormatLogprob(logprob), "token 42: logprob -0.1250; most likely 7 -1.0000, 8 -1.0000");
}

}  // namespace
}  // namespace pregate
