#include "client/answer_printer.h"

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "core/base/bytes.h"

namespace pregate {
namespace {

std::string Milliseconds(double seconds) { return absl::StrFormat("%.1f ms", seconds * 1e3); }

std::string EndReason(const v1::Finished& finished) {
  switch (finished.matched_case()) {
    case v1::Finished::kStop:
      return absl::StrCat("stopped at \"", absl::Utf8SafeCEscape(finished.stop()), "\"");
    case v1::Finished::kStopTokenId:
      return absl::StrCat("stopped at token ", finished.stop_token_id());
    default:
      return finished.reason() == v1::FINISH_REASON_LENGTH ? "stopped at the token limit"
                                                           : "stopped";
  }
}

// After the first token; nothing to divide when there is only one.
std::string TokenRate(const GenerationReport& report) {
  const double tokens = report.summary.usage().completion_tokens();
  const double seconds = report.last_token_seconds - report.first_token_seconds;
  if (tokens < 2 || seconds <= 0) return "";
  return absl::StrFormat(", %.1f tokens/s", (tokens - 1) / seconds);
}

std::string IdAndLogprob(const v1::TokenLogprob& logprob) {
  return absl::StrFormat("%d %.4f", logprob.token_id(), logprob.logprob());
}

}  // namespace

std::string FormatReport(const GenerationReport& report) {
  const v1::Usage& usage = report.summary.usage();
  const v1::Timings& timings = report.summary.timings();
  const v1::ExpertUsage& expert = report.summary.expert();
  std::string text = absl::StrCat("prompt ", usage.prompt_tokens(), " tokens");
  if (usage.cached_prompt_tokens() > 0) {
    absl::StrAppend(&text, " (", usage.cached_prompt_tokens(), " cached)");
  }
  absl::StrAppend(&text,
                  ", answer ",
                  usage.completion_tokens(),
                  " tokens",
                  TokenRate(report),
                  ", ",
                  EndReason(report.finished),
                  "\nfirst token ",
                  Milliseconds(report.first_token_seconds),
                  "; queue ",
                  Milliseconds(timings.queue_seconds()),
                  ", prefill ",
                  Milliseconds(timings.prefill_seconds()),
                  ", decode ",
                  Milliseconds(timings.decode_seconds()),
                  "\n");
  if (expert.hits() + expert.late_hits() + expert.misses() > 0) {
    absl::StrAppend(&text,
                    "experts ",
                    expert.hits(),
                    " hits, ",
                    expert.late_hits(),
                    " late, ",
                    expert.misses(),
                    " misses, ",
                    FormatBytes(expert.loaded_bytes()),
                    " loaded, stalled ",
                    Milliseconds(timings.expert_stall_seconds()),
                    "\n");
  }
  if (expert.reduced_precision_tokens() > 0) {
    absl::StrAppend(&text, expert.reduced_precision_tokens(), " tokens at reduced precision\n");
  }
  return text;
}

std::string FormatLogprob(const v1::TokenLogprob& logprob) {
  std::string text =
      absl::StrFormat("token %d: logprob %.4f", logprob.token_id(), logprob.logprob());
  if (logprob.top_size() > 0) {
    absl::StrAppend(
        &text,
        "; most likely ",
        absl::StrJoin(logprob.top(), ", ", [](std::string* out, const v1::TokenLogprob& top) {
          absl::StrAppend(out, IdAndLogprob(top));
        }));
  }
  return text;
}

AnswerPrinter::AnswerPrinter(Format format, Output& out, const Clock& clock)
    : format_(format), out_(out), clock_(clock), start_(clock.Now()) {}

absl::Status AnswerPrinter::Show(const v1::GenerateResponse& event) {
  switch (event.event_case()) {
    case v1::GenerateResponse::kDelta:
      Note(event.delta());
      break;
    case v1::GenerateResponse::kFinished:
      report_.finished = event.finished();
      break;
    case v1::GenerateResponse::kSummary:
      report_.summary = event.summary();
      break;
    default:
      break;
  }
  if (format_ == Format::kJson) return out_.Write(absl::StrCat(ToJson(event), "\n"));
  if (event.delta().text().empty()) return absl::OkStatus();
  return out_.Write(event.delta().text());
}

absl::Status AnswerPrinter::EndLine() {
  if (format_ == Format::kJson || text_.empty() || text_.back() == '\n') return absl::OkStatus();
  return out_.Write("\n");
}

void AnswerPrinter::Note(const v1::TokenDelta& delta) {
  if (delta.token_ids_size() > 0) {
    report_.last_token_seconds = ToSeconds(clock_.Now() - start_);
    if (!has_token_) report_.first_token_seconds = report_.last_token_seconds;
    has_token_ = true;
  }
  text_ += delta.text();
  logprobs_.insert(logprobs_.end(), delta.logprobs().begin(), delta.logprobs().end());
}

}  // namespace pregate
