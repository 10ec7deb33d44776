#include "server/watched_files.h"

#include <openssl/sha.h>

#include <utility>

#include "core/base/read_file.h"
#include "core/base/status_macros.h"

namespace pregate {

Sha256Digest Sha256(absl::string_view bytes) {
  Sha256Digest digest;
  SHA256(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size(), digest.data());
  return digest;
}

std::optional<absl::StatusOr<WatchedFiles::Contents>> WatchedFiles::Look() {
  absl::StatusOr<Contents> contents = Read();
  std::string told;
  if (contents.ok()) {
    for (const std::string& content : *contents) {
      const Sha256Digest digest = Sha256(content);
      told.append(digest.begin(), digest.end());
    }
  } else {
    told = contents.status().ToString();
  }
  const Sha256Digest digest = Sha256(told);
  if (std::exchange(found_, digest) == digest) return std::nullopt;
  return contents;
}

absl::StatusOr<WatchedFiles::Contents> WatchedFiles::Read() const {
  Contents contents;
  for (const std::string& path : paths_) {
    PREGATE_ASSIGN_OR_RETURN(contents.emplace_back(), ReadFile(path, kMaxBytes));
  }
  return contents;
}

}  // namespace pregate
