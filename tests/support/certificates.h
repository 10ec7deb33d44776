// Certificates of a test's own, made by the program `openssl`.
#pragma once

#include <string>

namespace pregate {

// Paths of two files in PEM form.
struct CertificatePair {
  std::string certificate;
  std::string key;
};

// An authority, whose files lie in `folder`, which exists.
class TestAuthority {
 public:
  TestAuthority(std::string folder, const std::string& name);

  const std::string& certificate() const { return pair_.certificate; }

  // A certificate of CN=`name` for localhost and 127.0.0.1, in files of that name.
  CertificatePair Issue(const std::string& name) const;

 private:
  const std::string folder_;
  const CertificatePair pair_;
};

}  // namespace pregate
