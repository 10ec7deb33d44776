// Bytes that no client would send, to the ports of a real server: whatever comes, the server goes
// on, answers others as before and keeps nothing.
//
// PREGATE_SEED sets the seed (it is printed), PREGATE_SECONDS how long it goes on.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iterator>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/fuzz/http2_exchange.h"
#include "tests/support/test_server.h"

namespace pregate {
namespace {

using ::testing::HasSubstr;

constexpr int kConnections = 1000;  // at least
constexpr int kBetweenChecks = 50;

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* const value = std::getenv(name);
  return value == nullptr ? otherwise : std::stoull(value);
}

// A client's end of a connection to a port of this machine. Used by one thread.
class RawConnection {
 public:
  explicit RawConnection(uint16_t port) : socket_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(port);
    is_open_ = connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
    EXPECT_TRUE(is_open_) << "the server does not accept connections";
  }
  ~RawConnection() { close(socket_); }
  RawConnection(const RawConnection&) = delete;
  RawConnection& operator=(const RawConnection&) = delete;

  // As much of it as the server takes before it closes.
  void Send(absl::string_view bytes) {
    while (!bytes.empty() && is_open_) {
      const ssize_t sent = send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      is_open_ = sent > 0;
      if (is_open_) bytes.remove_prefix(static_cast<size_t>(sent));
    }
  }
  // What comes next: "" at the end of the connection, or when nothing comes for `patience`.
  std::string Read(int patience_ms) {
    pollfd wait{.fd = socket_, .events = POLLIN, .revents = 0};
    if (poll(&wait, 1, patience_ms) <= 0) return "";
    char bytes[16384];
    const ssize_t size = recv(socket_, bytes, sizeof(bytes), 0);
    return size > 0 ? std::string(bytes, static_cast<size_t>(size)) : "";
  }
  // Until nothing has come for a while, or the end.
  void ReadUntilQuiet() {
    while (!Read(/*patience_ms=*/5).empty()) {
    }
  }
  // Says that no more comes, and reads until the server, which cancels what still runs, has closed.
  void HalfClose() {
    shutdown(socket_, SHUT_WR);
    while (!Read(-1).empty()) {
    }
  }
  // Closing sends a reset.
  void ResetAtClose() {
    const linger now{.l_onoff = 1, .l_linger = 0};
    setsockopt(socket_, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
  }

 private:
  const int socket_;
  bool is_open_ = false;
};

size_t OpenDescriptors() {
  return static_cast<size_t>(std::distance(std::filesystem::directory_iterator("/proc/self/fd"),
                                           std::filesystem::directory_iterator()));
}

constexpr char kComplete[] = "/pregate.v1.InferenceService/Complete";

class Http2MutatorTest : public ::testing::Test {
 protected:
  Http2MutatorTest() {
    Http2Frame settings;
    settings.type = Http2Frame::kSettings;
    Http2Frame window;
    window.type = Http2Frame::kWindowUpdate;
    window.payload = std::string("\0\0\xFF\xFF", 4);
    Http2Frame ping;
    ping.type = Http2Frame::kPing;
    ping.payload = "8 bytes.";
    Http2Frame cancel;
    cancel.type = Http2Frame::kRstStream;
    cancel.stream = 3;
    cancel.payload = std::string("\0\0\0\x08", 4);
    v1::TokenizeRequest tokenize;
    tokenize.set_text("the he");

    const Http2Exchange hello = {settings, window};
    const auto add = [](Http2Exchange& exchange, const Http2Exchange& more) {
      exchange.insert(exchange.end(), more.begin(), more.end());
    };
    Http2Exchange one = hello;
    add(one, GrpcCall(1, kComplete, Ask("the", 8).SerializeAsString()));
    exchanges_.push_back(one);
    Http2Exchange many = hello;
    add(many, GrpcCall(1, "/pregate.v1.InferenceService/Generate", LongRequest()));
    add(many, {ping});
    add(many, GrpcCall(3, "/pregate.v1.InferenceService/Generate", LongRequest()));
    add(many, {cancel});
    add(many, GrpcCall(5, "/pregate.v1.InferenceService/Tokenize", tokenize.SerializeAsString()));
    exchanges_.push_back(many);
    Http2Exchange admin = hello;
    add(admin, GrpcCall(1, "/pregate.v1.AdminService/GetLoad", ""));
    add(admin, GrpcCall(3, "/grpc.health.v1.Health/Watch", ""));
    exchanges_.push_back(admin);
  }

  static std::string LongRequest() { return Ask("he", 200).SerializeAsString(); }

  std::string Answer() {
    const Streamed streamed = Generate(server_, Ask("the", 8));
    EXPECT_TRUE(streamed.status.ok()) << streamed.status.error_message();
    return streamed.choice.text();
  }

  v1::GetLoadResponse Load() {
    grpc::ClientContext context;
    v1::GetLoadResponse load;
    const grpc::Status status = server_.admin().GetLoad(&context, {}, &load);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return load;
  }

  // One connection whose bytes, and whose end, are `random`'s.
  void Connect(std::mt19937_64& random) {
    const size_t which = random() % (exchanges_.size() + 1);
    const bool is_http = which == exchanges_.size();
    RawConnection connection(is_http ? server_.server().http_port() : server_.server().grpc_port());
    if (is_http) {
      std::string request = "GET /readyz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
      for (uint64_t i = random() % 4; i > 0; --i) MutateBytes(request, random);
      connection.Send(request);
    } else {
      connection.Send(Mutate(exchanges_[which], random));
    }
    // At once, or when the server has said all that it says to this.
    if (random() % 2 == 0) connection.ReadUntilQuiet();
    switch (random() % 3) {
      case 0:
        break;
      case 1:
        connection.ResetAtClose();
        break;
      case 2:
        connection.HalfClose();
        break;
    }
  }

  // Returns when the engine is idle and the server has closed its ends of all connections.
  void AwaitQuiet(size_t descriptors) {
    server_.AwaitLoad(0, 0);
    while (OpenDescriptors() > descriptors) std::this_thread::yield();
  }

  TestServer server_;
  std::vector<Http2Exchange> exchanges_;
};

TEST_F(Http2MutatorTest, AnExchangeAsItStandsIsAnswered) {
  RawConnection connection(server_.server().grpc_port());
  connection.Send(Serialize(exchanges_[0]));
  const std::string text = Answer();
  ASSERT_EQ(text.size(), 8u);
  std::string received;
  for (std::string more = "x"; !more.empty() && received.find(text) == std::string::npos;) {
    more = connection.Read(-1);
    received += more;
  }
  EXPECT_THAT(received, HasSubstr(text));
}

TEST_F(Http2MutatorTest, ACallThatEndsBeforeItsRequestCameIsNoInvalidRequest) {
  for (const std::string method : {"Generate", "Complete", "Tokenize"}) {
    Http2Exchange exchange = GrpcCall(1, "/pregate.v1.InferenceService/" + method, "");
    exchange.back().type = Http2Frame::kRstStream;
    exchange.back().flags = 0;
    exchange.back().payload = std::string("\0\0\0\x08", 4);  // CANCEL
    exchange.insert(exchange.begin(), exchanges_[0].front());
    RawConnection connection(server_.server().grpc_port());
    connection.Send(Serialize(exchange));
    const auto handled = [&](const char* code) {
      return server_.Metric(absl::StrCat("pregate_grpc_server_handled_total{grpc_method=\"",
                                         method,
                                         "\",grpc_code=\"",
                                         code,
                                         "\"}"));
    };
    while (handled("CANCELLED") + handled("INVALID_ARGUMENT") == 0) std::this_thread::yield();
    EXPECT_EQ(handled("CANCELLED"), 1) << method;
  }
  EXPECT_EQ(server_.Metric("pregate_requests_rejected_total{reason=\"invalid\"}"), 0);
}

TEST_F(Http2MutatorTest, NothingThatAClientSendsHurtsTheServer) {
  const uint64_t seed = FromEnvironment("PREGATE_SEED", 1);
  const auto end = std::chrono::steady_clock::now() +
                   std::chrono::seconds(FromEnvironment("PREGATE_SECONDS", 0));
  RecordProperty("seed", std::to_string(seed));
  std::printf("PREGATE_SEED=%llu\n", static_cast<unsigned long long>(seed));
  const std::string answer = Answer();
  const v1::GetLoadResponse idle = Load();
  const size_t descriptors = OpenDescriptors();
  std::mt19937_64 random(seed);
  int connections = 0;
  while (connections < kConnections || std::chrono::steady_clock::now() < end) {
    for (int i = 0; i < kBetweenChecks; ++i, ++connections) Connect(random);
    SCOPED_TRACE(testing::Message() << "PREGATE_SEED=" << seed << ", behind " << connections);
    AwaitQuiet(descriptors);
    ASSERT_EQ(Answer(), answer);
    ASSERT_EQ(server_.Get("/readyz").status, 200);
    ASSERT_EQ(Load().DebugString(), idle.DebugString());
    ASSERT_TRUE(server_.engine().health().ok());
  }
  std::printf("%d connections", connections);
  for (const char* reason : {"length", "cancelled"}) {
    const std::string series = absl::StrCat("pregate_finished_total{reason=\"", reason, "\"}");
    std::printf(", %.0f calls %s", server_.Metric(series), reason);
  }
  std::printf("\n");
}

}  // namespace
}  // namespace pregate
