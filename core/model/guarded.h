// The boundary to LibTorch's exceptions.
#pragma once

#include <exception>
#include <new>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/model/aten.h"

namespace pregate {

// Calls `body`, which returns a Status or StatusOr; what LibTorch throws becomes a Status. The only
// place that catches.
template <typename Body>
auto Guarded(Body&& body) -> decltype(body()) {
  try {
    const c10::InferenceMode no_gradients;
    return body();
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError("out of memory");
  } catch (const c10::Error& error) {
    return absl::InternalError(absl::StrCat("LibTorch: ", error.what_without_backtrace()));
  } catch (const std::exception& error) {
    return absl::InternalError(absl::StrCat("LibTorch: ", error.what()));
  }
}

}  // namespace pregate
