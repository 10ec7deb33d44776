// The server's side of TLS.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "core/base/log.h"
#include "core/base/mutex.h"
#include "grpcpp/security/server_credentials.h"
#include "server/config.h"
#include "server/watched_files.h"

struct grpc_ssl_server_certificate_config;

namespace pregate {

// The contents of TlsFiles.
struct TlsPems {
  std::string certificate;
  std::string key;
  std::string client_ca;  // "" = clients show no certificate
};

// What of a certificate is worth a log line.
struct CertificateSummary {
  std::string subject;  // "CN=pregate.example"
  std::string expires;  // "Jan 31 12:00:00 2027 GMT"
};

// OK when gRPC can serve with `pems`: a certificate, the key that belongs to it and, if there are
// any, authorities. INVALID_ARGUMENT names the file of `files` at fault and the reason.
absl::StatusOr<CertificateSummary> CheckPems(const TlsFiles& files, const TlsPems& pems);

// Serves gRPC with what the files say now: a connection made after Refresh has seen a change is
// made with the new certificate, those that there are go on. A pair that is wrong, or only half
// replaced, never gets to a connection: what was good before stays. Thread-safe, but for Refresh.
class ServerTls {
 public:
  // The errors are those of ReadFile and CheckPems. `logger` outlives this.
  static absl::StatusOr<std::unique_ptr<ServerTls>> Create(const TlsFiles& files,
                                                           const Logger& logger);

  // Looks at the files. A change is logged, with the reason when it is not taken over.
  void Refresh();

  // For one listener, of a gRPC server that is gone before this.
  std::shared_ptr<grpc::ServerCredentials> MakeCredentials();

 private:
  ServerTls(const TlsFiles& files, const Logger& logger);
  absl::Status TakeOver(absl::StatusOr<WatchedFiles::Contents> contents);
  // What to serve the next connection with; null when that has not changed since the last call.
  grpc_ssl_server_certificate_config* TakeChange();

  const TlsFiles files_;
  const Logger& logger_;
  WatchedFiles watched_;

  Mutex mutex_;
  std::optional<TlsPems> change_ ABSL_GUARDED_BY(mutex_);  // not yet taken by gRPC
};

}  // namespace pregate
