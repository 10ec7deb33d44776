#include "server/authenticator.h"

#include <string>

#include "gtest/gtest.h"
#include "server/status.h"
#include "tests/support/temp_folder.h"

namespace pregate {
namespace {

constexpr char kHere[] = "ipv4:127.0.0.1:4711";
constexpr char kElsewhere[] = "ipv4:192.0.2.1:4711";

class AuthenticatorTest : public ::testing::Test {
 protected:
  enum Files { kNone = 0, kTokens = 1, kAdminTokens = 2, kBoth = 3 };

  std::unique_ptr<Authenticator> Make(Files files) {
    ServerOptions options;
    if ((files & kTokens) != 0)
      options.auth_token_file = folder_.Write("tokens", "user-token alice\n");
    if ((files & kAdminTokens) != 0)
      options.admin_token_file = folder_.Write("admins", "admin-token root\n");
    return Authenticator::Create(options, logger_).value();
  }
  // A call from `peer` that shows `token`, if any.
  static Credentials Call(const std::string& peer, const std::string& token = "") {
    Credentials credentials;
    credentials.peer = peer;
    if (!token.empty()) credentials.authorization.push_back("Bearer " + token);
    return credentials;
  }
  // The identity, or the code and reason of the refusal.
  static std::string Outcome(const absl::StatusOr<std::string>& client) {
    if (client.ok()) return *client;
    return absl::StatusCodeToString(client.status().code()) + " " + ReasonOf(client.status());
  }

  const TempFolder folder_;
  const Logger logger_{LogLevel::kInfo, LogFormat::kText, [](const std::string&) {}};
};

TEST_F(AuthenticatorTest, WithoutFilesAdminsAreOnThisMachine) {
  const auto authenticator = Make(kNone);
  for (const Access access : {Access::kInference, Access::kAdmin})
    EXPECT_EQ(Outcome(authenticator->Admit(Call(kHere), access)), "127.0.0.1");
  EXPECT_EQ(Outcome(authenticator->Admit(Call(kElsewhere), Access::kInference)), "192.0.2.1");
  EXPECT_EQ(Outcome(authenticator->Admit(Call(kElsewhere), Access::kAdmin)),
            "PERMISSION_DENIED ADMIN_ON_LOOPBACK_ONLY");
  EXPECT_EQ(Outcome(authenticator->Admit(Call(kElsewhere, "anything"), Access::kInference)),
            "192.0.2.1")
      << "no token is asked for";
}

TEST_F(AuthenticatorTest, TokensAreNeededWhereThereAreSome) {
  const auto authenticator = Make(kTokens);
  for (const char* peer : {kHere, kElsewhere}) {
    const auto outcome = [&](const Credentials& call) {
      return Outcome(authenticator->Admit(call, Access::kInference));
    };
    EXPECT_EQ(outcome(Call(peer, "user-token")), "alice");
    EXPECT_EQ(outcome(Call(peer)), "UNAUTHENTICATED TOKEN_MISSING");
    EXPECT_EQ(outcome(Call(peer, "wrong")), "UNAUTHENTICATED TOKEN_UNKNOWN");
  }
  EXPECT_EQ(Outcome(authenticator->Admit(Call(kHere), Access::kAdmin)), "127.0.0.1");
  EXPECT_EQ(Outcome(authenticator->Admit(Call(kElsewhere, "user-token"), Access::kAdmin)),
            "PERMISSION_DENIED ADMIN_ON_LOOPBACK_ONLY");
}

TEST_F(AuthenticatorTest, AdminTokensAreApart) {
  const auto authenticator = Make(kBoth);
  for (const char* peer : {kHere, kElsewhere}) {
    const auto outcome = [&](const Credentials& call) {
      return Outcome(authenticator->Admit(call, Access::kAdmin));
    };
    EXPECT_EQ(outcome(Call(peer, "admin-token")), "root");
    EXPECT_EQ(outcome(Call(peer)), "UNAUTHENTICATED TOKEN_MISSING");
    EXPECT_EQ(outcome(Call(peer, "wrong")), "UNAUTHENTICATED TOKEN_UNKNOWN");
    EXPECT_EQ(outcome(Call(peer, "user-token")), "PERMISSION_DENIED ADMIN_TOKEN_NEEDED");
    EXPECT_EQ(Outcome(authenticator->Admit(Call(peer, "admin-token"), Access::kInference)), "root")
        << "an admin may do what anyone may";
  }
}

TEST_F(AuthenticatorTest, AdminTokensAloneLeaveTheRestOpen) {
  const auto authenticator = Make(kAdminTokens);
  EXPECT_EQ(Outcome(authenticator->Admit(Call(kElsewhere), Access::kInference)), "192.0.2.1");
  EXPECT_EQ(Outcome(authenticator->Admit(Call(kHere), Access::kAdmin)),
            "UNAUTHENTICATED TOKEN_MISSING");
  EXPECT_EQ(Outcome(authenticator->Admit(Call(kElsewhere, "admin-token"), Access::kAdmin)), "root");
}

TEST_F(AuthenticatorTest, ReadsOneBearerToken) {
  const auto authenticator = Make(kTokens);
  const auto outcome = [&](std::vector<std::string> authorization) {
    Credentials credentials = Call(kHere);
    credentials.authorization = std::move(authorization);
    return Outcome(authenticator->Admit(credentials, Access::kInference));
  };
  EXPECT_EQ(outcome({"bearer user-token"}), "alice") << "RFC 7235: schemes have no case";
  for (const char* malformed : {"", "user-token", "Basic user-token", "Bearer"})
    EXPECT_EQ(outcome({malformed}), "UNAUTHENTICATED TOKEN_MALFORMED") << malformed;
  EXPECT_EQ(outcome({"Bearer user-token", "Bearer user-token"}), "UNAUTHENTICATED TOKEN_MALFORMED");
  for (const char* unknown : {"Bearer ", "Bearer  user-token", "Bearer user-token "})
    EXPECT_EQ(outcome({unknown}), "UNAUTHENTICATED TOKEN_UNKNOWN") << unknown;
}

TEST_F(AuthenticatorTest, ACertificatesSubjectIsAnIdentity) {
  Credentials credentials = Call(kElsewhere, "user-token");
  credentials.subject = "CN=carol";
  EXPECT_EQ(Outcome(Make(kNone)->Admit(credentials, Access::kInference)), "CN=carol");
  EXPECT_EQ(Outcome(Make(kTokens)->Admit(credentials, Access::kInference)), "alice");
}

TEST_F(AuthenticatorTest, NamesTheFileThatCannotBeRead) {
  ServerOptions options;
  options.admin_token_file = folder_ / "none";
  EXPECT_EQ(Authenticator::Create(options, logger_).status().message(),
            "cannot open " + folder_ / "none" + ": No such file or directory");
}

TEST(IsLoopbackPeer, KnowsItsOwnMachine) {
  for (const char* peer :
       {"ipv4:127.0.0.1:4711", "ipv4:127.8.9.1:1", "ipv6:%5B::1%5D:1", "ipv6:[::1]:1", "unix:/x"})
    EXPECT_TRUE(IsLoopbackPeer(peer)) << peer;
  for (const char* peer : {"",
                           "ipv4:192.0.2.1:4711",
                           "ipv4:12.7.0.1:1",
                           "ipv6:%5B::11%5D:1",
                           "ipv6:[::10]:1",
                           "ipv6:%5B2001:db8::1%5D:1",
                           "dns:127.0.0.1:1"})
    EXPECT_FALSE(IsLoopbackPeer(peer)) << peer;
}

TEST(PeerHost, LeavesThePortOut) {
  EXPECT_EQ(PeerHost("ipv4:192.0.2.1:4711"), "192.0.2.1");
  EXPECT_EQ(PeerHost("ipv6:%5B2001:db8::1%5D:80"), "2001:db8::1");
  EXPECT_EQ(PeerHost("ipv6:[::1]:80"), "::1");
  EXPECT_EQ(PeerHost("unix:/run/pregated.sock"), "unix");
}

}  // namespace
}  // namespace pregate
