#include "bench/xml_text.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "absl/strings/str_cat.h"

namespace pregate {
namespace {

// Bytes of the character that `text`, not empty, begins with; 0: it is not well-formed UTF-8
// (RFC 3629), or not allowed in XML.
size_t CharacterLength(absl::string_view text) {
  const auto first = static_cast<uint8_t>(text[0]);
  if (first < 0x80) {
    return first >= 0x20 || first == '\t' || first == '\n' || first == '\r' ? 1 : 0;
  }
  const size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4 || text.size() < length) return 0;
  uint32_t code = first & (0x7FU >> length);
  for (size_t i = 1; i < length; ++i) {
    const auto byte = static_cast<uint8_t>(text[i]);
    if ((byte & 0xC0U) != 0x80) return 0;
    code = code << 6 | (byte & 0x3FU);
  }
  constexpr uint32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool is_surrogate = code >= 0xD800 && code <= 0xDFFF;
  if (code < kLeast[length] || code > 0x10FFFF || is_surrogate) return 0;
  return code == 0xFFFE || code == 0xFFFF ? 0 : length;
}

}  // namespace

std::string XmlText(absl::string_view text) {
  std::string escaped;
  while (!text.empty()) {
    const size_t length = CharacterLength(text);
    const absl::string_view character = text.substr(0, length);
    if (length == 0) {
      absl::StrAppend(&escaped, "\xEF\xBF\xBD");
    } else if (character == "&") {
      absl::StrAppend(&escaped, "&amp;");
    } else if (character == "<") {
      absl::StrAppend(&escaped, "&lt;");
    } else if (character == ">") {
      absl::StrAppend(&escaped, "&gt;");
    } else if (character == "\"") {
      absl::StrAppend(&escaped, "&quot;");
    } else {
      absl::StrAppend(&escaped, character);
    }
    text.remove_prefix(std::max<size_t>(length, 1));
  }
  return escaped;
}

}  // namespace pregate
