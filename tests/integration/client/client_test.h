// Runs the program against a scripted server.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "tests/integration/client/scripted_server.h"
#include "tests/support/process.h"

namespace pregate {

// `pregate --server ADDRESS arguments...`
inline std::vector<std::string> Pregate(const ScriptedServer& server,
                                        std::vector<std::string> arguments) {
  std::vector<std::string> argv = {BuiltProgram("pregate"), "--server", server.address()};
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  return argv;
}

inline v1::GenerateResponse FinishedAtLength() {
  v1::GenerateResponse event;
  event.mutable_finished()->set_reason(v1::FINISH_REASON_LENGTH);
  return event;
}

inline v1::GenerateResponse SummaryOf(uint32_t prompt_tokens, uint32_t completion_tokens) {
  v1::GenerateResponse event;
  event.mutable_summary()->mutable_usage()->set_prompt_tokens(prompt_tokens);
  event.mutable_summary()->mutable_usage()->set_completion_tokens(completion_tokens);
  event.mutable_summary()->mutable_timings()->set_prefill_seconds(0.25);
  return event;
}

// Answers `call` with one token and the usual end.
inline void AnswerWith(GenerateCall& call, const std::string& text) {
  call.SendText(7, text);
  call.Send(FinishedAtLength());
  call.Send(SummaryOf(3, 1));
  call.End();
}

}  // namespace pregate
