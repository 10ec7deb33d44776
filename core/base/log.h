// Structured log lines on stderr. Never give it a prompt, generated text, a token or another
// secret.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace pregate {

enum class LogLevel { kDebug, kInfo, kWarning, kError };
enum class LogFormat { kText, kJson };

// "debug", "info", "warning" or "error"; "text" or "json". Anything else is INVALID_ARGUMENT that
// lists the choices.
absl::StatusOr<LogLevel> ParseLogLevel(absl::string_view text);
absl::StatusOr<LogFormat> ParseLogFormat(absl::string_view text);

// One key and value of a log line.
struct LogField {
  LogField(absl::string_view key, const absl::AlphaNum& value) : key(key), value(value.Piece()) {}
  std::string key;
  std::string value;
};

// Writes one line per call, whole: `2026-01-31T12:00:00.000Z INFO message key=value` or a JSON
// object with the same. Thread-safe.
class Logger {
 public:
  using Sink = std::function<void(const std::string& line)>;

  // Without a sink lines go to stderr. Lines below `level` are dropped.
  explicit Logger(LogLevel level = LogLevel::kInfo,
                  LogFormat format = LogFormat::kText,
                  Sink sink = nullptr);

  void Debug(absl::string_view message, const std::vector<LogField>& fields = {}) const;
  void Info(absl::string_view message, const std::vector<LogField>& fields = {}) const;
  void Warning(absl::string_view message, const std::vector<LogField>& fields = {}) const;
  void Error(absl::string_view message, const std::vector<LogField>& fields = {}) const;

 private:
  void Write(LogLevel level, absl::string_view message, const std::vector<LogField>& fields) const;

  const LogLevel level_;
  const LogFormat format_;
  const Sink sink_;
};

}  // namespace pregate
