#include "core/base/log.h"

#include <unistd.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace pregate {
namespace {

constexpr const char* kLevelNames[] = {"debug", "info", "warning", "error"};

// A JSON string literal. Bytes from 0x80 on are passed as they are: fields hold UTF-8.
std::string Quote(absl::string_view text) {
  std::string quoted = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      quoted += '\\';
      quoted += c;
    } else if (byte < 0x20 || byte == 0x7f) {
      absl::StrAppendFormat(&quoted, "\\u%04x", byte);
    } else {
      quoted += c;
    }
  }
  return quoted + "\"";
}

// A value as text lines show it: quoted where it would not be read back as one word.
std::string Word(absl::string_view text) {
  const bool plain =
      !text.empty() && text.find_first_of(" \"=\\") == absl::string_view::npos &&
      std::none_of(text.begin(), text.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; });
  return plain ? std::string(text) : Quote(text);
}

void WriteToStderr(const std::string& line) {
  // One write, so that lines of several threads and processes stay whole. Nothing can be done about
  // a closed stderr.
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace

absl::StatusOr<LogLevel> ParseLogLevel(absl::string_view text) {
  for (int i = 0; i < 4; ++i) {
    if (text == kLevelNames[i]) return static_cast<LogLevel>(i);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("log level '", text, "' is not one of debug, info, warning, error"));
}

absl::StatusOr<LogFormat> ParseLogFormat(absl::string_view text) {
  if (text == "text") return LogFormat::kText;
  if (text == "json") return LogFormat::kJson;
  return absl::InvalidArgumentError(
      absl::StrCat("log format '", text, "' is not one of text, json"));
}

Logger::Logger(LogLevel level, LogFormat format, Sink sink)
    : level_(level), format_(format), sink_(sink ? std::move(sink) : Sink(WriteToStderr)) {}

void Logger::Debug(absl::string_view message, const std::vector<LogField>& fields) const {
  Write(LogLevel::kDebug, message, fields);
}
void Logger::Info(absl::string_view message, const std::vector<LogField>& fields) const {
  Write(LogLevel::kInfo, message, fields);
}
void Logger::Warning(absl::string_view message, const std::vector<LogField>& fields) const {
  Write(LogLevel::kWarning, message, fields);
}
void Logger::Error(absl::string_view message, const std::vector<LogField>& fields) const {
  Write(LogLevel::kError, message, fields);
}

void Logger::Write(LogLevel level,
                   absl::string_view message,
                   const std::vector<LogField>& fields) const {
  if (level < level_) return;
  const char* name = kLevelNames[static_cast<int>(level)];
  const std::string time =
      absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::Now(), absl::UTCTimeZone());
  std::string line;
  if (format_ == LogFormat::kJson) {
    line = absl::StrCat(
        "{\"time\":\"", time, "\",\"level\":\"", name, "\",\"message\":", Quote(message));
    for (const LogField& field : fields)
      absl::StrAppend(&line, ",", Quote(field.key), ":", Quote(field.value));
    line += "}\n";
  } else {
    line = absl::StrCat(time, " ", absl::AsciiStrToUpper(name), " ", message);
    for (const LogField& field : fields)
      absl::StrAppend(&line, " ", field.key, "=", Word(field.value));
    line += "\n";
  }
  sink_(line);
}

}  // namespace pregate
