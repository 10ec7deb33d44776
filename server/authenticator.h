// Who may call what.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "core/base/log.h"
#include "grpcpp/server_context.h"
#include "server/config.h"
#include "server/token_file.h"

namespace pregate {

// What a call asks for.
enum class Access { kInference, kAdmin };

// What a call shows of itself.
struct Credentials {
  std::vector<std::string> authorization;  // its metadata of that name
  std::string subject;                     // of the client's certificate, verified; "" = none
  std::string peer;                        // as gRPC names it: "ipv4:127.0.0.1:4711"
};
Credentials CredentialsOf(const grpc::CallbackServerContext& context);

// Whether a peer is on this machine.
bool IsLoopbackPeer(absl::string_view peer);

// A peer's address without its port: all connections of a machine are one client.
std::string PeerHost(absl::string_view peer);

// Admits calls by bearer tokens. With a file of tokens a call needs one of them, or an admin token;
// with a file of admin tokens an admin call needs one of those. Without the latter admin calls are
// admitted from loopback alone, and need no token. Thread-safe, but for Refresh.
class Authenticator {
 public:
  // The errors are those of TokenFile::Load. `logger` outlives this.
  static absl::StatusOr<std::unique_ptr<Authenticator>> Create(const ServerOptions& options,
                                                               const Logger& logger);

  // Looks at the token files.
  void Refresh();

  // The client's identity: the name of its token, else the subject of its certificate, else its
  // address; a token that nothing asks for is not looked at. UNAUTHENTICATED: no token, or none
  // that is known here. PERMISSION_DENIED: known, but no admin.
  absl::StatusOr<std::string> Admit(const Credentials& credentials, Access access) const;

 private:
  Authenticator() = default;
  absl::StatusOr<std::string> AdmitToken(absl::string_view token, Access access) const;

  // Null where none is configured.
  std::unique_ptr<TokenFile> tokens_;
  std::unique_ptr<TokenFile> admin_tokens_;
};

}  // namespace pregate
