#include "server/token_file.h"

#include <openssl/crypto.h>

#include <algorithm>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "core/base/status_macros.h"

namespace pregate {
namespace {

constexpr size_t kMaxName = 64;
constexpr char kDigestPrefix[] = "sha256:";

std::string Hex(const Sha256Digest& digest) {
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(digest.data()), digest.size()));
}

absl::StatusOr<Sha256Digest> ParseDigest(absl::string_view hex) {
  Sha256Digest digest;
  if (hex.size() != 2 * digest.size() || !std::all_of(hex.begin(), hex.end(), absl::ascii_isxdigit))
    return absl::InvalidArgumentError("behind 'sha256:' there are not 64 hexadecimal digits");
  const std::string bytes = absl::HexStringToBytes(hex);
  std::copy(bytes.begin(), bytes.end(), digest.begin());
  return digest;
}

absl::Status CheckName(absl::string_view name) {
  const auto is_allowed = [](unsigned char c) {
    return absl::ascii_isalnum(c) || absl::string_view("._@-").find(c) != absl::string_view::npos;
  };
  if (name.size() <= kMaxName && std::all_of(name.begin(), name.end(), is_allowed))
    return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the name is not of up to ", kMaxName, " letters, digits or '._@-'"));
}

absl::StatusOr<KnownToken> ParseLine(absl::string_view line) {
  const std::vector<absl::string_view> words =
      absl::StrSplit(line, absl::ByAnyChar(" \t"), absl::SkipEmpty());
  if (words.size() > 2) {
    return absl::InvalidArgumentError("more than a token and a name");
  }
  absl::string_view token = words[0];
  KnownToken known;
  if (absl::ConsumePrefix(&token, kDigestPrefix)) {
    PREGATE_ASSIGN_OR_RETURN(known.digest, ParseDigest(token));
  } else {
    // What a header can carry.
    if (!std::all_of(token.begin(), token.end(), absl::ascii_isgraph))
      return absl::InvalidArgumentError("the token is not of visible ASCII characters");
    known.digest = Sha256(token);
  }
  known.name = words.size() == 2 ? std::string(words[1])
                                 : absl::StrCat("token-", Hex(known.digest).substr(0, 8));
  PREGATE_RETURN_IF_ERROR(CheckName(known.name));
  return known;
}

}  // namespace

absl::StatusOr<std::vector<KnownToken>> ParseTokens(absl::string_view text) {
  std::vector<KnownToken> tokens;
  int number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    line = absl::StripAsciiWhitespace(line);
    if (line.empty() || line.front() == '#') continue;
    absl::StatusOr<KnownToken> token = ParseLine(line);
    if (!token.ok())
      return absl::InvalidArgumentError(absl::StrCat(number, ": ", token.status().message()));
    tokens.push_back(*std::move(token));
  }
  if (tokens.empty()) return absl::InvalidArgumentError(" no token in it");
  return tokens;
}

absl::StatusOr<std::unique_ptr<TokenFile>> TokenFile::Load(const std::string& path,
                                                           const Logger& logger) {
  auto file = absl::WrapUnique(new TokenFile(path, logger));
  PREGATE_RETURN_IF_ERROR(file->TakeOver(*file->watched_.Look()));
  return file;
}

TokenFile::TokenFile(std::string path, const Logger& logger)
    : path_(std::move(path)), logger_(logger), watched_({path_}) {}

void TokenFile::Refresh() {
  const std::optional<absl::StatusOr<WatchedFiles::Contents>> contents = watched_.Look();
  if (!contents.has_value()) return;
  if (const absl::Status status = TakeOver(*contents); !status.ok()) {
    logger_.Error("tokens not taken over, the old ones stay", {{"reason", status.message()}});
  }
}

absl::Status TokenFile::TakeOver(const absl::StatusOr<WatchedFiles::Contents>& contents) {
  PREGATE_RETURN_IF_ERROR(contents.status());
  absl::StatusOr<std::vector<KnownToken>> tokens = ParseTokens(contents->front());
  if (!tokens.ok())
    return absl::InvalidArgumentError(absl::StrCat(path_, ":", tokens.status().message()));
  logger_.Info("tokens", {{"file", path_}, {"count", tokens->size()}});
  auto taken = std::make_shared<const std::vector<KnownToken>>(*std::move(tokens));
  MutexLock lock(mutex_);
  tokens_ = std::move(taken);
  return absl::OkStatus();
}

std::optional<std::string> TokenFile::NameOf(absl::string_view token) const {
  std::shared_ptr<const std::vector<KnownToken>> tokens;
  {
    MutexLock lock(mutex_);
    tokens = tokens_;
  }
  const Sha256Digest digest = Sha256(token);
  const KnownToken* found = nullptr;
  for (const KnownToken& known : *tokens) {  // all of them, found or not
    if (CRYPTO_memcmp(known.digest.data(), digest.data(), digest.size()) == 0) found = &known;
  }
  if (found == nullptr) return std::nullopt;
  return found->name;
}

}  // namespace pregate
