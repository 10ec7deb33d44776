// Propagation of absl::Status. The packaged Abseil has none.
#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

// Returns from the enclosing function when `expression`, an absl::Status, is not OK.
#define PREGATE_RETURN_IF_ERROR(expression)                                 \
  do {                                                                      \
    if (absl::Status pregate_status = (expression); !pregate_status.ok()) { \
      return pregate_status;                                                \
    }                                                                       \
  } while (false)

// Assigns the value of `expression`, an absl::StatusOr, to `lhs` (which may declare a variable), or
// returns its status.
#define PREGATE_ASSIGN_OR_RETURN(lhs, expression) \
  PREGATE_ASSIGN_OR_RETURN_(PREGATE_CONCAT_(pregate_statusor_, __LINE__), lhs, expression)

#define PREGATE_ASSIGN_OR_RETURN_(statusor, lhs, expression) \
  auto statusor = (expression);                              \
  if (!statusor.ok()) return std::move(statusor).status();   \
  lhs = *std::move(statusor)
#define PREGATE_CONCAT_(a, b) PREGATE_CONCAT_INNER_(a, b)
#define PREGATE_CONCAT_INNER_(a, b) a##b
