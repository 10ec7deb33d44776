#include "client/credentials.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/input.h"
#include "core/base/status_macros.h"

namespace pregate {
namespace {

// The file's text, which has PEM's first line of a `kind`, such as "CERTIFICATE". Nothing without a
// path.
absl::StatusOr<std::string> ReadPem(const std::string& path, absl::string_view kind) {
  if (path.empty()) return std::string();
  PREGATE_ASSIGN_OR_RETURN(std::string pem, ReadTextFile(path));
  if (absl::StrContains(pem, "-----BEGIN ") && absl::StrContains(pem, absl::StrCat(kind, "-----")))
    return pem;
  return absl::InvalidArgumentError(
      absl::StrCat(path, ": has no ", absl::AsciiStrToLower(kind), " in PEM form"));
}

absl::StatusOr<std::string> CheckToken(absl::string_view text, absl::string_view source) {
  const absl::string_view token = absl::StripAsciiWhitespace(text);
  if (!token.empty() && std::all_of(token.begin(), token.end(), absl::ascii_isgraph))
    return std::string(token);
  return absl::InvalidArgumentError(
      absl::StrCat(source, ": is not one token of visible ASCII characters"));
}

}  // namespace

std::vector<Flag> CredentialFlags(CredentialOptions& options) {
  std::vector<Flag> flags = {
      TextFlag("tls-ca",
               "FILE",
               "use TLS, and believe these authorities (--tls: the system's)",
               options.tls_ca),
      TextFlag("token-file",
               "FILE",
               "a token to call with (default: the variable PREGATE_TOKEN)",
               options.token_file)};
  for (const Flag& flag :
       {SwitchFlag("tls", "use TLS, and believe the system's authorities", options.tls),
        TextFlag("tls-cert", "FILE", "the client's own certificate", options.tls_cert),
        TextFlag("tls-key", "FILE", "its private key", options.tls_key),
        SwitchFlag(
            "insecure", "send the token to other machines without TLS, too", options.insecure)}) {
    flags.push_back(flag);
    flags.back().is_rare = true;
  }
  return flags;
}

absl::Status ReadCredentials(const CredentialOptions& options,
                             const char* environment_token,
                             ClientOptions& client) {
  if (options.tls_cert.empty() != options.tls_key.empty())
    return absl::InvalidArgumentError("--tls-cert and --tls-key need each other");
  if (options.tls || !options.tls_ca.empty() || !options.tls_cert.empty()) {
    ClientTls& tls = client.tls.emplace();
    PREGATE_ASSIGN_OR_RETURN(tls.authorities, ReadPem(options.tls_ca, "CERTIFICATE"));
    PREGATE_ASSIGN_OR_RETURN(tls.certificate, ReadPem(options.tls_cert, "CERTIFICATE"));
    PREGATE_ASSIGN_OR_RETURN(tls.key, ReadPem(options.tls_key, "PRIVATE KEY"));
  }
  if (!options.token_file.empty()) {
    PREGATE_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(options.token_file));
    PREGATE_ASSIGN_OR_RETURN(client.token, CheckToken(text, options.token_file));
  } else if (environment_token != nullptr && *environment_token != '\0') {
    PREGATE_ASSIGN_OR_RETURN(client.token, CheckToken(environment_token, "PREGATE_TOKEN"));
  }
  if (!client.token.empty() && !client.tls.has_value() && !options.insecure &&
      !IsLoopbackServer(client.server)) {
    return absl::InvalidArgumentError(absl::StrCat("the token would travel in the clear to ",
                                                   client.server,
                                                   ": say --tls or --tls-ca FILE, or --insecure"));
  }
  return absl::OkStatus();
}

}  // namespace pregate
