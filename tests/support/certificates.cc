#include "tests/support/certificates.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/base/check.h"
#include "tests/support/process.h"

namespace pregate {
namespace {

// A key on the curve P-256 and a certificate for it.
CertificatePair Make(const std::string& folder,
                     const std::string& name,
                     const std::vector<std::string>& more) {
  CertificatePair pair = {.certificate = absl::StrCat(folder, "/", name, ".pem"),
                          .key = absl::StrCat(folder, "/", name, ".key")};
  std::vector<std::string> argv = {"openssl", "req", "-x509", "-nodes", "-days", "2"};
  for (const char* argument : {"-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-subj"})
    argv.push_back(argument);
  for (const std::string& argument :
       {absl::StrCat("/CN=", name), std::string("-keyout"), pair.key, std::string("-out")})
    argv.push_back(argument);
  argv.push_back(pair.certificate);
  argv.insert(argv.end(), more.begin(), more.end());
  const ProgramResult result = RunProgram(argv);
  PREGATE_CHECK(result.exit_code == 0, result.err);
  return pair;
}

}  // namespace

TestAuthority::TestAuthority(std::string folder, const std::string& name)
    : folder_(std::move(folder)), pair_(Make(folder_, name, {})) {}

CertificatePair TestAuthority::Issue(const std::string& name) const {
  return Make(folder_,
              name,
              {"-CA",
               pair_.certificate,
               "-CAkey",
               pair_.key,
               "-addext",
               "subjectAltName=DNS:localhost,IP:127.0.0.1"});
}

}  // namespace pregate
