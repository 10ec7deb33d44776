// Random requests, and what each has to come to whatever runs beside it.
#pragma once

#include <ostream>
#include <string>
#include <vector>

#include "core/engine/model_runner.h"
#include "core/engine/request.h"
#include "core/engine/response_stream.h"
#include "tests/support/fake_runner.h"

namespace pregate {

// For RapidCheck's report of a counterexample.
std::ostream& operator<<(std::ostream& os, const Request& request);

// A request that is valid for `limits`. Draws from RapidCheck: call it inside a property. With a
// vocabulary of a few dozen tokens its stop tokens are met now and then.
Request AnyRequest(const ModelRunner::Limits& limits);

// "" when `tokens` and then `completion` are what `request` comes to, were it alone on `runner`:
// all of its answer, or the beginning of it if it was ended early; else what is wrong. Who may end
// a request early, and with which status, is for the caller to check.
std::string CheckAnswer(const Request& request,
                        const std::vector<GeneratedToken>& tokens,
                        const Completion& completion,
                        const FakeRunner& runner);

}  // namespace pregate
