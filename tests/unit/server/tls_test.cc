#include "server/tls.h"

#include <filesystem>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/certificates.h"
#include "tests/support/process.h"
#include "tests/support/temp_folder.h"

namespace pregate {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class TlsTest : public ::testing::Test {
 protected:
  TlsFiles FilesOf(const CertificatePair& pair) {
    TlsFiles files;
    files.certificate = pair.certificate;
    files.key = pair.key;
    return files;
  }
  // Why `files` are refused, without the folder.
  std::string Complaint(const TlsFiles& files) {
    const absl::Status status = ServerTls::Create(files, logger_).status();
    EXPECT_FALSE(status.ok());
    return absl::StrReplaceAll(status.message(), {{folder_.path(), "DIR"}});
  }

  const TempFolder folder_;
  const TestAuthority authority_{folder_.path(), "authority"};
  const CertificatePair server_ = authority_.Issue("server");
  std::string log_;
  const Logger logger_{LogLevel::kDebug, LogFormat::kText, [this](const std::string& line) {
                         absl::StrAppend(&log_, line, "\n");
                       }};
};

TEST_F(TlsTest, TellsWhatItServesWith) {
  ASSERT_TRUE(ServerTls::Create(FilesOf(server_), logger_).ok());
  EXPECT_THAT(log_, AllOf(HasSubstr("TLS certificate subject="), HasSubstr("CN=server")));
  EXPECT_THAT(log_, AllOf(HasSubstr("expires="), HasSubstr("GMT")));
  TlsFiles mutual = FilesOf(server_);
  mutual.client_ca = authority_.certificate();
  EXPECT_TRUE(ServerTls::Create(mutual, logger_).ok());
}

TEST_F(TlsTest, NamesTheFileAtFaultAndWhy) {
  TlsFiles files = FilesOf(server_);
  files.certificate = folder_ / "none";
  EXPECT_EQ(Complaint(files), "cannot open DIR/none: No such file or directory");
  files.certificate = server_.key;
  EXPECT_EQ(Complaint(files), "DIR/server.key: has no certificate in PEM form");
  files.certificate = folder_.Write("broken",
                                    "-----BEGIN CERTIFICATE-----\nbm9uc2Vuc2U=\n"
                                    "-----END CERTIFICATE-----\n");
  EXPECT_EQ(Complaint(files), "DIR/broken: certificate 1 cannot be read");
  files.certificate =
      folder_.Write("chain", ReadFile(server_.certificate) + ReadFile(files.certificate));
  EXPECT_EQ(Complaint(files), "DIR/chain: certificate 2 cannot be read");
  files.certificate = folder_.Write("zero", std::string(1, '\0') + ReadFile(server_.certificate));
  EXPECT_EQ(Complaint(files), "DIR/zero: is not in PEM form: it has a zero byte");

  files = FilesOf(server_);
  files.key = server_.certificate;
  EXPECT_EQ(Complaint(files), "DIR/server.pem: has no private key in PEM form");
  files.key = authority_.Issue("other").key;
  EXPECT_EQ(Complaint(files),
            "DIR/other.key: is not the key of the (first) certificate in DIR/server.pem");
  files.key = folder_ / "encrypted.key";
  ASSERT_EQ(RunProgram({"openssl",
                        "pkcs8",
                        "-topk8",
                        "-passout",
                        "pass:x",
                        "-in",
                        server_.key,
                        "-out",
                        files.key})
                .exit_code,
            0);
  EXPECT_THAT(Complaint(files), HasSubstr("DIR/encrypted.key: the private key is encrypted"));

  files = FilesOf(server_);
  files.client_ca = folder_.Write("empty", "");
  EXPECT_EQ(Complaint(files), "DIR/empty: has no certificate in PEM form");
}

TEST_F(TlsTest, TakesOverAPairOnlyWhenItIsWhole) {
  const auto tls = ServerTls::Create(FilesOf(server_), logger_).value();
  const CertificatePair next = authority_.Issue("next");
  log_.clear();
  std::filesystem::copy_file(
      next.certificate, server_.certificate, std::filesystem::copy_options::overwrite_existing);
  tls->Refresh();
  EXPECT_THAT(log_, HasSubstr("ERROR TLS files not taken over, the old ones stay"));
  EXPECT_THAT(log_, HasSubstr("server.key: is not the key of the (first) certificate in"));
  log_.clear();
  tls->Refresh();
  EXPECT_EQ(log_, "") << "told once";
  std::filesystem::copy_file(
      next.key, server_.key, std::filesystem::copy_options::overwrite_existing);
  tls->Refresh();
  EXPECT_THAT(log_, AllOf(HasSubstr("CN=next"), Not(HasSubstr("ERROR"))));
}

}  // namespace
}  // namespace pregate
