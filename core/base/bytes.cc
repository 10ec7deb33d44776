#include "core/base/bytes.h"

#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace pregate {
namespace {

struct Unit {
  const char* name;
  double bytes;
};
constexpr Unit kUnits[] = {
    {"", 1},
    {"B", 1},
    {"kB", 1e3},
    {"MB", 1e6},
    {"GB", 1e9},
    {"TB", 1e12},
    {"KiB", 1024.0},
    {"MiB", 1024.0 * 1024},
    {"GiB", 1024.0 * 1024 * 1024},
    {"TiB", 1024.0 * 1024 * 1024 * 1024},
};

}  // namespace

absl::StatusOr<uint64_t> ParseBytes(absl::string_view text) {
  const size_t digits = std::min(text.find_first_not_of("0123456789."), text.size());
  const absl::string_view unit_name = absl::StripAsciiWhitespace(text.substr(digits));
  double number = 0;
  for (const Unit& unit : kUnits) {
    if (unit_name != unit.name || !absl::SimpleAtod(text.substr(0, digits), &number)) continue;
    const double bytes = std::floor(number * unit.bytes);
    if (bytes < 0x1p63) return static_cast<uint64_t>(bytes);
  }
  return absl::InvalidArgumentError(absl::StrCat("'",
                                                 text,
                                                 "' is not a size: write a number and B, kB, MB, "
                                                 "GB, TB, KiB, MiB, GiB or TiB, such as 22GiB"));
}

std::string FormatBytes(uint64_t bytes) {
  constexpr const char* kNames[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  if (bytes < 1024) return absl::StrCat(bytes, " B");
  double value = static_cast<double>(bytes);
  int unit = 0;
  while (value >= 1024 && unit < 4) {
    value /= 1024;
    ++unit;
  }
  return absl::StrFormat("%.1f %s", value, kNames[unit]);
}

}  // namespace pregate
