// One generation, shown as it arrives.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "client/output.h"
#include "core/base/clock.h"
#include "pregate/v1/inference.pb.h"

namespace pregate {

// What a generation cost.
struct GenerationReport {
  v1::Finished finished;
  v1::Summary summary;
  double first_token_seconds = 0;  // from the request to its first token, as the client saw it
  double last_token_seconds = 0;
};

// Two lines for people, three when experts were looked up.
std::string FormatReport(const GenerationReport& report);

// "token 42: logprob -0.1235; most likely 42 -0.1235, 7 -2.5".
std::string FormatLogprob(const v1::TokenLogprob& logprob);

// Used by one thread.
class AnswerPrinter {
 public:
  enum class Format { kText, kJson };  // kJson: one object a line for each event

  // The request is sent now. `out` and `clock` must outlive this.
  AnswerPrinter(Format format, Output& out, const Clock& clock);

  // Writes an event; returns what Output::Write returns.
  absl::Status Show(const v1::GenerateResponse& event);
  // Ends the text's last line, once, complete or not.
  absl::Status EndLine();

  const std::string& text() const { return text_; }
  const std::vector<v1::TokenLogprob>& logprobs() const { return logprobs_; }
  const GenerationReport& report() const { return report_; }

 private:
  void Note(const v1::TokenDelta& delta);

  const Format format_;
  Output& out_;
  const Clock& clock_;
  const TimePoint start_;
  std::string text_;
  std::vector<v1::TokenLogprob> logprobs_;
  GenerationReport report_;
  bool has_token_ = false;
};

}  // namespace pregate
