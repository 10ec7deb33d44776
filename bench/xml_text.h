// Any bytes as text inside an XML element or attribute.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace pregate {

// `text` with markup escaped. Each byte that is not part of well-formed UTF-8, and each character
// that XML 1.0 does not allow (section 2.2), becomes U+FFFD.
std::string XmlText(absl::string_view text);

}  // namespace pregate
