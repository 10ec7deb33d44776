// Small files that change while the server runs: certificates, keys, tokens.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace pregate {

using Sha256Digest = std::array<uint8_t, 32>;
Sha256Digest Sha256(absl::string_view bytes);

// Tells when the content of any of some files is another one. It compares contents, not times,
// which tell nothing of a file that was replaced twice within a tick. Keeps no content, for it is
// secret. Used by one thread.
class WatchedFiles {
 public:
  using Contents = std::vector<std::string>;            // of each file, in the order of the paths
  static constexpr size_t kMaxBytes = size_t{1} << 20;  // of a file

  explicit WatchedFiles(std::vector<std::string> paths) : paths_(std::move(paths)) {}

  // The contents, or why a file cannot be read, when that is not what the last call found; else
  // nothing.
  std::optional<absl::StatusOr<Contents>> Look();

 private:
  absl::StatusOr<Contents> Read() const;

  const std::vector<std::string> paths_;
  std::optional<Sha256Digest> found_;  // of the contents, or of the error's message
};

}  // namespace pregate
