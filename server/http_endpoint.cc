#include "server/http_endpoint.h"

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "httplib.h"
#include "prometheus/text_serializer.h"

namespace pregate {
namespace {

constexpr size_t kThreads = 4;  // scrapes and probes at once
constexpr char kMetricsType[] = "text/plain; version=0.0.4; charset=utf-8";

}  // namespace

absl::StatusOr<std::unique_ptr<HttpEndpoint>> HttpEndpoint::Create(
    const Address& address, const prometheus::Collectable& metrics, std::function<bool()> ready) {
  auto server = std::make_unique<httplib::Server>();
  server->new_task_queue = [] { return new httplib::ThreadPool(kThreads); };
  // The library would set SO_REUSEPORT, with which a second server on this port would silently
  // share it.
  server->set_socket_options([](socket_t socket) {
    const int yes = 1;
    setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
  });
  server->set_payload_max_length(1024);
  server->set_keep_alive_timeout(1);  // seconds; bounds how long a stop waits
  server->Get("/metrics", [&metrics](const httplib::Request&, httplib::Response& response) {
    response.set_content(prometheus::TextSerializer().Serialize(metrics.Collect()), kMetricsType);
  });
  server->Get("/livez", [](const httplib::Request&, httplib::Response& response) {
    response.set_content("ok\n", "text/plain");
  });
  server->Get("/readyz",
              [ready = std::move(ready)](const httplib::Request&, httplib::Response& response) {
                const bool is_ready = ready();
                response.status = is_ready ? 200 : 503;
                response.set_content(is_ready ? "ok\n" : "not ready\n", "text/plain");
              });
  errno = 0;
  const int port = address.port == 0
                       ? server->bind_to_any_port(address.host)
                       : (server->bind_to_port(address.host, address.port) ? address.port : -1);
  if (port < 0) {
    return absl::UnavailableError(
        absl::StrCat("cannot listen on ",
                     address.host,
                     ":",
                     address.port,
                     " for HTTP: ",
                     errno != 0 ? std::strerror(errno) : "no such address"));
  }
  return std::unique_ptr<HttpEndpoint>(
      new HttpEndpoint(std::move(server), static_cast<uint16_t>(port)));
}

HttpEndpoint::HttpEndpoint(std::unique_ptr<httplib::Server> server, uint16_t port)
    : server_(std::move(server)),
      port_(port),
      thread_("http", [this] { server_->listen_after_bind(); }) {
  // stop() does nothing before the listener runs.
  while (!server_->is_running()) std::this_thread::yield();
}

HttpEndpoint::~HttpEndpoint() { server_->stop(); }

}  // namespace pregate
