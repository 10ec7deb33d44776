// Bearer tokens out of a file.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "core/base/log.h"
#include "core/base/mutex.h"
#include "server/watched_files.h"

namespace pregate {

// A token as it is kept: what was in the file is forgotten.
struct KnownToken {
  Sha256Digest digest;
  std::string name;  // whose it is
};

// A file's tokens: one a line, as `TOKEN [NAME]` or, so that the file itself holds no secret,
// `sha256:HEX [NAME]`. Lines that begin with # and empty ones say nothing. Several tokens may have
// one name; one without is called "token-" and the first eight digits of its SHA-256.
// INVALID_ARGUMENT names the line, never what is in it; no token at all is one as well.
absl::StatusOr<std::vector<KnownToken>> ParseTokens(absl::string_view text);

// Knows the tokens that the file has now. A content that cannot be used changes nothing.
// Thread-safe, but for Refresh.
class TokenFile {
 public:
  // The errors are those of ReadFile and ParseTokens, with the path. `logger` outlives this.
  static absl::StatusOr<std::unique_ptr<TokenFile>> Load(const std::string& path,
                                                         const Logger& logger);

  // Looks at the file. A change is logged, with the reason when it is not taken over.
  void Refresh();

  // Whose token it is; nothing when it is none of the file's. Takes the same time whichever it is.
  std::optional<std::string> NameOf(absl::string_view token) const;

 private:
  TokenFile(std::string path, const Logger& logger);
  absl::Status TakeOver(const absl::StatusOr<WatchedFiles::Contents>& contents);

  const std::string path_;
  const Logger& logger_;
  WatchedFiles watched_;

  mutable Mutex mutex_;
  std::shared_ptr<const std::vector<KnownToken>> tokens_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace pregate
