// The HTTP side: /metrics for Prometheus, /livez and /readyz for probes.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "core/base/thread.h"
#include "prometheus/collectable.h"
#include "server/config.h"

namespace httplib {
class Server;
}

namespace pregate {

class HttpEndpoint {
 public:
  // Serves from here on. `metrics` outlives the endpoint; `ready` tells what /readyz answers (200
  // or 503) and is called by any thread. UNAVAILABLE: the address cannot be listened on.
  static absl::StatusOr<std::unique_ptr<HttpEndpoint>> Create(
      const Address& address, const prometheus::Collectable& metrics, std::function<bool()> ready);
  ~HttpEndpoint();

  uint16_t port() const { return port_; }

 private:
  HttpEndpoint(std::unique_ptr<httplib::Server> server, uint16_t port);

  const std::unique_ptr<httplib::Server> server_;
  const uint16_t port_;
  Thread thread_;  // last: it runs server_
};

}  // namespace pregate
