#include "server/config.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/time/time.h"
#include "core/base/check.h"
#include "core/base/status_macros.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/io/tokenizer.h"
#include "google/protobuf/text_format.h"
#include "pregate/v1/config.pb.h"

namespace pregate {
namespace {

// For experiments, and for what the defaults do well: --help is to fit a screen.
constexpr absl::string_view kRare[] = {"cpu-isa",
                                       "pack-folder",
                                       "record-routing",
                                       "simulated-link",
                                       "speculation-aggressiveness",
                                       "speculation-confidence",
                                       "speculation-lookahead",
                                       "verify-slots"};

absl::Status SetDuration(absl::string_view text, Duration& target) {
  absl::Duration duration;
  if (!absl::ParseDuration(text, &duration) || duration < absl::ZeroDuration() ||
      duration > absl::Hours(24)) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", text, "' is not a duration from 0s to 24h, such as 30s or 2m"));
  }
  target = absl::ToChronoNanoseconds(duration);
  return absl::OkStatus();
}

template <typename T>
absl::Status SetParsed(absl::StatusOr<T> parsed, T& target) {
  if (parsed.ok()) target = *parsed;
  return parsed.status();
}

// Remembers the first error of a parse, with its place.
class FirstError final : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int line,
                google::protobuf::io::ColumnNumber column,
                const std::string& message) override {
    if (message_.empty()) message_ = absl::StrCat(line + 1, ":", column + 1, ": ", message);
  }
  const std::string& message() const { return message_; }

 private:
  std::string message_;
};

absl::StatusOr<std::string> ReadText(const std::string& path) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error))
    return absl::InvalidArgumentError(absl::StrCat(path, ": is a folder, not a file"));
  std::ifstream file(path);
  if (!file)
    return absl::NotFoundError(absl::StrCat(path, ": cannot be read: ", std::strerror(errno)));
  return std::string(std::istreambuf_iterator<char>(file), {});
}

// Names other than localhost are not looked up: they may point anywhere.
bool IsLoopback(const std::string& host) {
  in_addr v4{};
  in6_addr v6{};
  if (inet_pton(AF_INET, host.c_str(), &v4) == 1) return ntohl(v4.s_addr) >> 24 == 127;
  if (inet_pton(AF_INET6, host.c_str(), &v6) == 1) return IN6_IS_ADDR_LOOPBACK(&v6) != 0;
  return host == "localhost";
}

// `way_out`: what else than --insecure makes an address beyond loopback acceptable; "" = it is.
absl::Status CheckAddress(absl::string_view flag,
                          const std::string& text,
                          absl::string_view way_out) {
  const absl::StatusOr<Address> address = ParseAddress(text);
  if (!address.ok())
    return absl::InvalidArgumentError(absl::StrCat("--", flag, ": ", address.status().message()));
  if (!way_out.empty() && !IsLoopback(address->host)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--",
                     flag,
                     " ",
                     text,
                     " can be reached from other machines without TLS: ",
                     way_out,
                     ", or say --insecure"));
  }
  return absl::OkStatus();
}

absl::Status CheckTls(const TlsFiles& files) {
  if (!files.any()) return absl::OkStatus();
  for (const auto& [flag, file] :
       {std::pair("--tls-cert", &files.certificate), std::pair("--tls-key", &files.key)}) {
    if (file->empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("TLS needs both --tls-cert and --tls-key: ", flag, " is missing"));
    }
  }
  return absl::OkStatus();
}

std::vector<Flag> SecurityFlags(ServerOptions& options) {
  return {TextFlag("tls-cert",
                   "FILE",
                   "certificate chain in PEM form (default: no TLS)",
                   options.tls.certificate),
          TextFlag("tls-key", "FILE", "its private key", options.tls.key),
          TextFlag("tls-client-ca",
                   "FILE",
                   "lets in clients with a certificate of it only",
                   options.tls.client_ca),
          TextFlag("auth-token-file",
                   "FILE",
                   "tokens that calls need (default: none needed)",
                   options.auth_token_file),
          TextFlag("admin-token-file",
                   "FILE",
                   "tokens of admin calls (default: loopback only)",
                   options.admin_token_file),
          SwitchFlag("insecure", "allow other machines to connect without TLS", options.insecure)};
}

}  // namespace

std::vector<Flag> ServerFlags(ServerOptions& options) {
  std::vector<Flag> flags = EngineFlags(options.engine);
  flags.push_back(TextFlag("listen",
                           "HOST:PORT",
                           "gRPC address (default 127.0.0.1:50051; port 0: any)",
                           options.listen));
  flags.push_back(TextFlag("http-listen",
                           "HOST:PORT",
                           "metrics and probes (default 127.0.0.1:8002)",
                           options.http_listen));
  flags.push_back(
      {.name = "drain-timeout",
       .value_name = "DURATION",
       .help = "how long SIGTERM lets streams finish (default 30s)",
       .set = [&](absl::string_view text) { return SetDuration(text, options.drain_timeout); }});
  for (Flag& flag : SecurityFlags(options)) flags.push_back(std::move(flag));
  flags.push_back({.name = "log-level",
                   .value_name = "debug|info|warning|error",
                   .help = "(default info)",
                   .set = [&](absl::string_view text) {
                     return SetParsed(ParseLogLevel(text), options.log_level);
                   }});
  flags.push_back({.name = "log-format",
                   .value_name = "text|json",
                   .help = "(default text)",
                   .set = [&](absl::string_view text) {
                     return SetParsed(ParseLogFormat(text), options.log_format);
                   }});
  for (Flag& flag : flags)
    flag.is_rare = std::find(std::begin(kRare), std::end(kRare), flag.name) != std::end(kRare);
  return flags;
}

absl::Status ApplyConfigFile(const std::string& path, const std::vector<Flag>& flags) {
  PREGATE_ASSIGN_OR_RETURN(const std::string text, ReadText(path));
  v1::Config config;
  FirstError error;
  google::protobuf::TextFormat::ParseInfoTree places;
  google::protobuf::TextFormat::Parser parser;
  parser.RecordErrorsTo(&error);
  parser.WriteLocationsTo(&places);
  if (!parser.ParseFromString(text, &config))
    return absl::InvalidArgumentError(absl::StrCat(path, ":", error.message()));

  std::vector<const google::protobuf::FieldDescriptor*> fields;
  config.GetReflection()->ListFields(config, &fields);
  for (const google::protobuf::FieldDescriptor* field : fields) {
    std::string value;
    if (field->type() == google::protobuf::FieldDescriptor::TYPE_STRING) {
      value = config.GetReflection()->GetString(config, field);
    } else {
      google::protobuf::TextFormat::PrintFieldValueToString(config, field, -1, &value);
    }
    const std::string name = absl::StrReplaceAll(field->name(), {{"_", "-"}});
    const auto flag =
        std::find_if(flags.begin(), flags.end(), [&](const Flag& f) { return f.name == name; });
    PREGATE_CHECK(flag != flags.end(), "config.proto has ", field->name(), ", the flags do not");
    if (const absl::Status status = flag->set(value); !status.ok()) {
      const int line = places.GetLocation(field, -1).line + 1;
      return absl::InvalidArgumentError(
          absl::StrCat(path, ":", line, ": ", field->name(), ": ", status.message()));
    }
  }
  return absl::OkStatus();
}

absl::Status ValidateOptions(const ServerOptions& options) {
  if (options.engine.model.empty()) {
    return absl::InvalidArgumentError(
        "no model: say --model DIR, or set model in the configuration file");
  }
  PREGATE_RETURN_IF_ERROR(CheckTls(options.tls));
  const bool accepts_any = options.insecure || options.tls.any();
  PREGATE_RETURN_IF_ERROR(
      CheckAddress("listen",
                   options.listen,
                   accepts_any ? "" : "listen on 127.0.0.1, give --tls-cert and --tls-key"));
  // Which has no TLS.
  PREGATE_RETURN_IF_ERROR(CheckAddress(
      "http-listen", options.http_listen, options.insecure ? "" : "listen on 127.0.0.1"));
  if (options.listen == options.http_listen && !absl::EndsWith(options.listen, ":0")) {
    return absl::InvalidArgumentError(
        absl::StrCat("--listen and --http-listen are both ", options.listen));
  }
  return absl::OkStatus();
}

absl::StatusOr<Address> ParseAddress(absl::string_view text) {
  const size_t colon = text.rfind(':');
  uint32_t port = 0;
  if (colon == absl::string_view::npos || colon == 0 ||
      !absl::SimpleAtoi(text.substr(colon + 1), &port) || port > 65535) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", text, "' is not HOST:PORT, such as 127.0.0.1:50051"));
  }
  absl::string_view host = text.substr(0, colon);
  if (host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  if (host.empty()) return absl::InvalidArgumentError(absl::StrCat("'", text, "' names no host"));
  return Address{.host = std::string(host), .port = static_cast<uint16_t>(port)};
}

}  // namespace pregate
