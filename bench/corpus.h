// Text files to measure a model with.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace pregate {

// A whole file, decompressed when its name ends in .zst. INVALID_ARGUMENT for what is not whole
// zstd data; errors of the system are MappedFile's. All name the path.
absl::StatusOr<std::string> ReadText(const std::string& path);

// The documents of a text, in order: a line that holds U+001E alone ends one. A document keeps its
// last line feed; what follows the last such line is a document unless it is empty.
std::vector<absl::string_view> SplitDocuments(absl::string_view text);

}  // namespace pregate
