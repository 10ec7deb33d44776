#include "client/credentials.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/temp_folder.h"

namespace pregate {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class CredentialsTest : public ::testing::Test {
 protected:
  absl::Status Read(const char* environment_token = nullptr) {
    return ReadCredentials(options_, environment_token, client_);
  }

  const TempFolder folder_;
  CredentialOptions options_;
  ClientOptions client_;
};

constexpr char kCertificate[] = "-----BEGIN CERTIFICATE-----\nYQ==\n-----END CERTIFICATE-----";
constexpr char kKey[] = "-----BEGIN EC PRIVATE KEY-----\nYQ==\n-----END EC PRIVATE KEY-----";

TEST_F(CredentialsTest, AreNoneUnlessAskedFor) {
  ASSERT_TRUE(Read().ok());
  ASSERT_TRUE(Read("").ok());
  EXPECT_FALSE(client_.tls.has_value());
  EXPECT_EQ(client_.token, "");
}

TEST_F(CredentialsTest, AFileOfTlsMeansTls) {
  options_.tls_ca = folder_.Write("ca.pem", kCertificate);
  ASSERT_TRUE(Read().ok());
  EXPECT_EQ(client_.tls->authorities, kCertificate);
  EXPECT_EQ(client_.tls->key, "");
  options_ = CredentialOptions();
  options_.tls = true;
  ASSERT_TRUE(Read().ok());
  EXPECT_EQ(client_.tls->authorities, "") << "the system's";
  options_.tls_cert = folder_.Write("client.pem", kCertificate);
  options_.tls_key = folder_.Write("client.key", kKey);
  ASSERT_TRUE(Read().ok());
  EXPECT_EQ(client_.tls->certificate, kCertificate);
  EXPECT_EQ(client_.tls->key, kKey);
}

TEST_F(CredentialsTest, NamesTheFileAtFault) {
  options_.tls_cert = folder_.Write("client.pem", kCertificate);
  EXPECT_EQ(Read().message(), "--tls-cert and --tls-key need each other");
  options_.tls_key = options_.tls_cert;
  EXPECT_EQ(Read().message(), options_.tls_cert + ": has no private key in PEM form");
  options_.tls_ca = folder_ / "none";
  EXPECT_THAT(std::string(Read().message()), HasSubstr("cannot open " + options_.tls_ca));
}

TEST_F(CredentialsTest, TheFilesTokenGoesBeforeTheVariables) {
  ASSERT_TRUE(Read("secret-1").ok());
  EXPECT_EQ(client_.token, "secret-1");
  options_.token_file = folder_.Write("token", " secret-2\r\n\n");
  ASSERT_TRUE(Read("secret-1").ok());
  EXPECT_EQ(client_.token, "secret-2");
}

TEST_F(CredentialsTest, ShowsNoTokenThatIsWrong) {
  options_.token_file = folder_.Write("token", "secret-1\nsecret-2\n");
  EXPECT_EQ(Read().message(),
            options_.token_file + ": is not one token of visible ASCII characters");
  options_.token_file = folder_.Write("token", "\n");
  EXPECT_FALSE(Read().ok());
  options_.token_file.clear();
  EXPECT_EQ(Read("secret\x01").message(),
            "PREGATE_TOKEN: is not one token of visible ASCII characters");
}

TEST_F(CredentialsTest, SendsNoTokenInTheClearToOtherMachines) {
  for (const char* here : {"127.0.0.1:1", "127.9.9.9:1", "localhost:1", "[::1]:1"}) {
    client_.server = here;
    EXPECT_TRUE(Read("secret").ok()) << here;
  }
  for (const char* elsewhere : {"192.0.2.1:1", "127.example.org:1", "localhost.example:1"}) {
    client_ = ClientOptions();
    client_.server = elsewhere;
    options_ = CredentialOptions();
    EXPECT_THAT(std::string(Read("secret").message()),
                HasSubstr(std::string("in the clear to ") + elsewhere + ": say --tls"));
    EXPECT_THAT(std::string(Read("secret").message()), Not(HasSubstr("secret")));
    options_.insecure = true;
    EXPECT_TRUE(Read("secret").ok()) << elsewhere;
    options_ = CredentialOptions();
    options_.tls = true;
    EXPECT_TRUE(Read("secret").ok()) << elsewhere;
  }
}

}  // namespace
}  // namespace pregate
