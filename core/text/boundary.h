// Between core/text and its Rust crate: values as rust/pregate_text.h wants them. Private to this
// folder.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "core/text/rust/pregate_text.h"

namespace pregate::text_internal {

inline PregateBytes Borrow(absl::string_view text) { return {text.data(), text.size()}; }

// A sink that fills `target`, a std::string or std::vector, which must outlive the call.
template <typename Container>
PregateSink Into(Container& target) {
  return {.target = &target, .put = [](void* container, const void* data, size_t size) {
            const auto* items = static_cast<const typename Container::value_type*>(data);
            static_cast<Container*>(container)->assign(items, items + size);
          }};
}

// Makes a status of what a call returned. `call` is given the sink for its error.
template <typename Call>
absl::Status StatusOf(Call call) {
  std::string message;
  const int32_t code = call(Into(message));
  return absl::Status(static_cast<absl::StatusCode>(code), message);
}

// `status` with `place` in front of its message.
absl::Status At(absl::string_view place, const absl::Status& status);

}  // namespace pregate::text_internal
