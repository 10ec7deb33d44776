#include "core/device/backend.h"

#include "absl/strings/str_cat.h"
#include "core/base/bytes.h"

namespace pregate {
namespace {

absl::string_view NameOf(MemoryKind kind) {
  switch (kind) {
    case MemoryKind::kHost:
      return "host";
    case MemoryKind::kPinned:
      return "pinned";
    case MemoryKind::kDevice:
      return "device";
  }
  return "unknown";
}

}  // namespace

absl::Status NotEnoughMemory(MemoryKind kind, uint64_t bytes, uint64_t free_bytes) {
  return absl::ResourceExhaustedError(absl::StrCat(FormatBytes(bytes),
                                                   " of ",
                                                   NameOf(kind),
                                                   " memory were asked for; ",
                                                   FormatBytes(free_bytes),
                                                   " are free"));
}

}  // namespace pregate
