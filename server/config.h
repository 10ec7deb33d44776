// What the daemon can be told: the engine's options and its own, by flags and by a file.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/base/options.h"

namespace pregate {

// Files in PEM form; "" = none.
struct TlsFiles {
  std::string certificate;  // the server's own first, then what leads from it to a root
  std::string key;          // of that certificate, not encrypted
  std::string client_ca;    // who may sign clients' certificates, which are then asked for

  bool any() const { return !certificate.empty() || !key.empty() || !client_ca.empty(); }
};

struct ServerOptions {
  EngineOptions engine;
  std::string listen = "127.0.0.1:50051";      // gRPC; port 0 lets the system choose
  std::string http_listen = "127.0.0.1:8002";  // /metrics, /livez, /readyz
  Duration drain_timeout = std::chrono::seconds(30);
  TlsFiles tls;                  // none: without TLS
  std::string auth_token_file;   // tokens that calls need; "" = none is needed
  std::string admin_token_file;  // tokens that admin calls need; "" = these come from loopback only
  bool insecure = false;         // allows listening beyond loopback without TLS
  LogLevel log_level = LogLevel::kInfo;
  LogFormat log_format = LogFormat::kText;
};

// The flags of `options`, which must outlive them: the engine's and the daemon's own.
std::vector<Flag> ServerFlags(ServerOptions& options);

// Applies a configuration file: pregate.v1.Config in protobuf text format, each field through the
// flag of its name. INVALID_ARGUMENT or NOT_FOUND names file, line and field.
absl::Status ApplyConfigFile(const std::string& path, const std::vector<Flag>& flags);

// What only shows when all is set: a missing model, an address that is none, a certificate without
// its key, listening beyond loopback without TLS or --insecure. No file is looked at.
absl::Status ValidateOptions(const ServerOptions& options);

// "HOST:PORT" or "[HOST]:PORT" split; INVALID_ARGUMENT when it is neither.
struct Address {
  std::string host;
  uint16_t port = 0;
};
absl::StatusOr<Address> ParseAddress(absl::string_view text);

}  // namespace pregate
