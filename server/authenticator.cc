#include "server/authenticator.h"

#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/match.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "core/base/status_macros.h"
#include "grpc/grpc_security_constants.h"
#include "server/status.h"

namespace pregate {
namespace {

std::string ToString(const grpc::string_ref& text) { return std::string(text.data(), text.size()); }

absl::Status Unauthenticated(absl::string_view message, absl::string_view reason) {
  return WithReason(absl::UnauthenticatedError(message), reason);
}

// The token of "Bearer TOKEN" (RFC 6750, 2.1).
absl::StatusOr<absl::string_view> BearerToken(const std::vector<std::string>& authorization) {
  if (authorization.empty()) {
    return Unauthenticated(
        "a token is needed here: send the metadata `authorization: Bearer TOKEN`", "TOKEN_MISSING");
  }
  constexpr absl::string_view kScheme = "Bearer ";
  absl::string_view token = authorization.front();
  if (authorization.size() > 1 || !absl::StartsWithIgnoreCase(token, kScheme)) {
    return Unauthenticated("the metadata `authorization` is not one `Bearer TOKEN`",
                           "TOKEN_MALFORMED");
  }
  token.remove_prefix(kScheme.size());
  return token;
}

}  // namespace

Credentials CredentialsOf(const grpc::CallbackServerContext& context) {
  Credentials credentials;
  const auto [begin, end] = context.client_metadata().equal_range("authorization");
  for (auto it = begin; it != end; ++it) credentials.authorization.push_back(ToString(it->second));
  const std::shared_ptr<const grpc::AuthContext> auth_context = context.auth_context();
  if (auth_context != nullptr && auth_context->IsPeerAuthenticated()) {
    const std::vector<grpc::string_ref> subjects =
        auth_context->FindPropertyValues(GRPC_X509_SUBJECT_PROPERTY_NAME);
    if (!subjects.empty()) credentials.subject = ToString(subjects.front());
  }
  credentials.peer = context.peer();
  return credentials;
}

bool IsLoopbackPeer(absl::string_view peer) {
  for (const char* prefix : {"ipv4:127.", "ipv6:[::1]:", "ipv6:%5B::1%5D:", "unix:"}) {
    if (absl::StartsWith(peer, prefix)) return true;
  }
  return false;
}

std::string PeerHost(absl::string_view peer) {
  if (absl::StartsWith(peer, "unix:")) return "unix";
  if (!absl::ConsumePrefix(&peer, "ipv4:")) absl::ConsumePrefix(&peer, "ipv6:");
  return absl::StrReplaceAll(peer.substr(0, peer.rfind(':')),
                             {{"%5B", ""}, {"%5D", ""}, {"[", ""}, {"]", ""}});
}

absl::StatusOr<std::unique_ptr<Authenticator>> Authenticator::Create(const ServerOptions& options,
                                                                     const Logger& logger) {
  auto authenticator = absl::WrapUnique(new Authenticator());
  if (!options.auth_token_file.empty()) {
    PREGATE_ASSIGN_OR_RETURN(authenticator->tokens_,
                             TokenFile::Load(options.auth_token_file, logger));
  }
  if (!options.admin_token_file.empty()) {
    PREGATE_ASSIGN_OR_RETURN(authenticator->admin_tokens_,
                             TokenFile::Load(options.admin_token_file, logger));
  }
  return authenticator;
}

void Authenticator::Refresh() {
  if (tokens_ != nullptr) tokens_->Refresh();
  if (admin_tokens_ != nullptr) admin_tokens_->Refresh();
}

absl::StatusOr<std::string> Authenticator::Admit(const Credentials& credentials,
                                                 Access access) const {
  const bool is_admin = access == Access::kAdmin;
  if (is_admin ? admin_tokens_ != nullptr : tokens_ != nullptr) {
    PREGATE_ASSIGN_OR_RETURN(const absl::string_view token, BearerToken(credentials.authorization));
    return AdmitToken(token, access);
  }
  if (is_admin && !IsLoopbackPeer(credentials.peer)) {
    return WithReason(absl::PermissionDeniedError(
                          "admin methods are open to clients on the server's own machine only"),
                      "ADMIN_ON_LOOPBACK_ONLY");
  }
  return credentials.subject.empty() ? PeerHost(credentials.peer) : credentials.subject;
}

absl::StatusOr<std::string> Authenticator::AdmitToken(absl::string_view token,
                                                      Access access) const {
  const auto name_in = [token](const std::unique_ptr<TokenFile>& file) {
    return file == nullptr ? std::nullopt : file->NameOf(token);
  };
  const std::optional<std::string> admin = name_in(admin_tokens_);
  if (admin.has_value()) return *admin;
  const std::optional<std::string> user = name_in(tokens_);
  if (!user.has_value()) return Unauthenticated("the token is not known here", "TOKEN_UNKNOWN");
  if (access == Access::kInference) return *user;
  return WithReason(absl::PermissionDeniedError("admin methods need an admin token"),
                    "ADMIN_TOKEN_NEEDED");
}

}  // namespace pregate
