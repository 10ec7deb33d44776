// What the client shows of itself, and whom it believes: TLS and tokens.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "client/client.h"
#include "core/base/options.h"

namespace pregate {

// As flags give it; "" = not given. Any file of TLS's means TLS.
struct CredentialOptions {
  bool tls = false;
  std::string tls_ca;
  std::string tls_cert;
  std::string tls_key;
  std::string token_file;
  bool insecure = false;
};

// The flags of `options`, which must outlive them.
std::vector<Flag> CredentialFlags(CredentialOptions& options);

// Reads the files into `client`; the token is that of the file, else `environment_token`, which may
// be null. INVALID_ARGUMENT: flags that do not go together, a file without what it should hold, or
// a token that would travel in the clear to `client.server`, on another machine. Another code: a
// file cannot be read. No message shows a token.
absl::Status ReadCredentials(const CredentialOptions& options,
                             const char* environment_token,
                             ClientOptions& client);

}  // namespace pregate
