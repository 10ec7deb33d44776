// PREGATE_CHECK: for our own broken invariants, never for input or I/O, which get an absl::Status.
#pragma once

#include <string>

#include "absl/strings/str_cat.h"

namespace pregate::internal {
// Prints `file:line: check failed: condition (message)` on stderr and aborts.
[[noreturn]] void CheckFailed(const char* file,
                              int line,
                              const char* condition,
                              const std::string& message);
}  // namespace pregate::internal

// Aborts when `condition` is false. Further arguments are put together with absl::StrCat for the
// message, and evaluated only then.
#define PREGATE_CHECK(condition, ...)                               \
  (static_cast<bool>(condition) ? static_cast<void>(0)              \
                                : ::pregate::internal::CheckFailed( \
                                      __FILE__, __LINE__, #condition, absl::StrCat(__VA_ARGS__)))
