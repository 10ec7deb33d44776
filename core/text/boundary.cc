#include "core/text/boundary.h"

#include "absl/strings/str_cat.h"

namespace pregate::text_internal {

absl::Status At(absl::string_view place, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(place, ": ", status.message()));
}

}  // namespace pregate::text_internal
