#include "server/tls.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <utility>
#include <vector>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "core/base/check.h"
#include "core/base/status_macros.h"
#include "grpc/grpc_security.h"

namespace pregate {
namespace {

struct Free {
  void operator()(BIO* bio) const { BIO_free(bio); }
  void operator()(X509* certificate) const { X509_free(certificate); }
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
};
using BioPtr = std::unique_ptr<BIO, Free>;
using X509Ptr = std::unique_ptr<X509, Free>;
using KeyPtr = std::unique_ptr<EVP_PKEY, Free>;

BioPtr Open(const std::string& bytes) {
  return BioPtr(BIO_new_mem_buf(bytes.data(), static_cast<int>(bytes.size())));
}

absl::Status Wrong(const std::string& path, absl::string_view reason) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", reason));
}

// gRPC is given C strings.
absl::Status CheckText(const std::string& path, const std::string& pem) {
  if (pem.find('\0') == std::string::npos) return absl::OkStatus();
  return Wrong(path, "is not in PEM form: it has a zero byte");
}

// All of a file's certificates, at least one.
absl::StatusOr<std::vector<X509Ptr>> ReadCertificates(const std::string& path,
                                                      const std::string& pem) {
  PREGATE_RETURN_IF_ERROR(CheckText(path, pem));
  const BioPtr bio = Open(pem);
  std::vector<X509Ptr> certificates;
  ERR_clear_error();
  while (X509Ptr certificate = X509Ptr(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr)))
    certificates.push_back(std::move(certificate));
  const bool is_end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
  ERR_clear_error();
  if (!is_end) {
    return Wrong(path, absl::StrCat("certificate ", certificates.size() + 1, " cannot be read"));
  }
  if (certificates.empty()) return Wrong(path, "has no certificate in PEM form");
  return certificates;
}

// Asked for a passphrase: there is none, and nobody to ask.
int NotePassphrase(char*, int, int, void* is_encrypted) {
  *static_cast<bool*>(is_encrypted) = true;
  return -1;
}

absl::StatusOr<KeyPtr> ReadKey(const std::string& path, const std::string& pem) {
  PREGATE_RETURN_IF_ERROR(CheckText(path, pem));
  const BioPtr bio = Open(pem);
  bool is_encrypted = false;
  KeyPtr key(PEM_read_bio_PrivateKey(bio.get(), nullptr, NotePassphrase, &is_encrypted));
  ERR_clear_error();
  if (key != nullptr) return key;
  return Wrong(path,
               is_encrypted ? "the private key is encrypted: a server has nobody to ask for the "
                              "passphrase"
                            : "has no private key in PEM form");
}

// What `print` writes.
template <typename Print>
std::string Printed(Print print) {
  const BioPtr bio(BIO_new(BIO_s_mem()));
  print(bio.get());
  char* text = nullptr;
  const auto size = BIO_get_mem_data(bio.get(), &text);
  return std::string(text, static_cast<size_t>(size));
}

CertificateSummary Summarize(X509& certificate) {
  CertificateSummary summary;
  summary.subject = Printed([&](BIO* out) {
    X509_NAME_print_ex(out, X509_get_subject_name(&certificate), 0, XN_FLAG_RFC2253);
  });
  summary.expires =
      Printed([&](BIO* out) { ASN1_TIME_print(out, X509_get0_notAfter(&certificate)); });
  return summary;
}

// gRPC's own are made from contents, once.
class ReloadingCredentials final : public grpc::ServerCredentials {
 public:
  explicit ReloadingCredentials(grpc_server_credentials* credentials) : credentials_(credentials) {}
  ~ReloadingCredentials() override { grpc_server_credentials_release(credentials_); }

  void SetAuthMetadataProcessor(const std::shared_ptr<grpc::AuthMetadataProcessor>&) override {
    PREGATE_CHECK(false, "tokens are looked at by the services");
  }

 private:
  int AddPortToServer(const std::string& address, grpc_server* server) override {
    return grpc_server_add_http2_port(server, address.c_str(), credentials_);
  }

  grpc_server_credentials* const credentials_;
};

std::vector<std::string> Paths(const TlsFiles& files) {
  std::vector<std::string> paths = {files.certificate, files.key};
  if (!files.client_ca.empty()) paths.push_back(files.client_ca);
  return paths;
}

}  // namespace

absl::StatusOr<CertificateSummary> CheckPems(const TlsFiles& files, const TlsPems& pems) {
  PREGATE_ASSIGN_OR_RETURN(const std::vector<X509Ptr> chain,
                           ReadCertificates(files.certificate, pems.certificate));
  PREGATE_ASSIGN_OR_RETURN(const KeyPtr key, ReadKey(files.key, pems.key));
  const bool match = X509_check_private_key(chain.front().get(), key.get()) == 1;
  ERR_clear_error();
  if (!match) {
    return Wrong(files.key,
                 absl::StrCat("is not the key of the (first) certificate in ", files.certificate));
  }
  if (!files.client_ca.empty())
    PREGATE_RETURN_IF_ERROR(ReadCertificates(files.client_ca, pems.client_ca).status());
  return Summarize(*chain.front());
}

absl::StatusOr<std::unique_ptr<ServerTls>> ServerTls::Create(const TlsFiles& files,
                                                             const Logger& logger) {
  auto tls = absl::WrapUnique(new ServerTls(files, logger));
  PREGATE_RETURN_IF_ERROR(tls->TakeOver(*tls->watched_.Look()));
  return tls;
}

ServerTls::ServerTls(const TlsFiles& files, const Logger& logger)
    : files_(files), logger_(logger), watched_(Paths(files)) {}

void ServerTls::Refresh() {
  std::optional<absl::StatusOr<WatchedFiles::Contents>> contents = watched_.Look();
  if (!contents.has_value()) return;
  if (const absl::Status status = TakeOver(*std::move(contents)); !status.ok()) {
    logger_.Error("TLS files not taken over, the old ones stay", {{"reason", status.message()}});
  }
}

absl::Status ServerTls::TakeOver(absl::StatusOr<WatchedFiles::Contents> contents) {
  PREGATE_RETURN_IF_ERROR(contents.status());
  TlsPems pems;
  pems.certificate = std::move((*contents)[0]);
  pems.key = std::move((*contents)[1]);
  if (!files_.client_ca.empty()) pems.client_ca = std::move((*contents)[2]);
  PREGATE_ASSIGN_OR_RETURN(const CertificateSummary summary, CheckPems(files_, pems));
  {
    MutexLock lock(mutex_);
    change_ = std::move(pems);
  }
  logger_.Info("TLS certificate", {{"subject", summary.subject}, {"expires", summary.expires}});
  return absl::OkStatus();
}

std::shared_ptr<grpc::ServerCredentials> ServerTls::MakeCredentials() {
  const auto request = files_.client_ca.empty()
                           ? GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE
                           : GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY;
  // Asked for by gRPC at every handshake.
  const auto fetch = [](void* self, grpc_ssl_server_certificate_config** config) {
    *config = static_cast<ServerTls*>(self)->TakeChange();
    return *config == nullptr ? GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED
                              : GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW;
  };
  return std::make_shared<ReloadingCredentials>(grpc_ssl_server_credentials_create_with_options(
      grpc_ssl_server_credentials_create_options_using_config_fetcher(request, fetch, this)));
}

grpc_ssl_server_certificate_config* ServerTls::TakeChange() {
  std::optional<TlsPems> pems;
  {
    MutexLock lock(mutex_);
    pems = std::exchange(change_, std::nullopt);
  }
  if (!pems.has_value()) return nullptr;
  const grpc_ssl_pem_key_cert_pair pair = {.private_key = pems->key.c_str(),
                                           .cert_chain = pems->certificate.c_str()};
  // gRPC wants authorities also where it asks for no client certificate and so uses none.
  const std::string& client_ca = pems->client_ca.empty() ? pems->certificate : pems->client_ca;
  return grpc_ssl_server_certificate_config_create(client_ca.c_str(), &pair, 1);
}

}  // namespace pregate
