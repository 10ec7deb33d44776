// Results on stdout.
#pragma once

#include <cstdio>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/message.h"

namespace pregate {

// `message` as proto3 JSON on one line, with snake_case names and without leaving out zeros.
std::string ToJson(const google::protobuf::Message& message);

// `rows`, of equal length, as lines whose columns are aligned.
std::string FormatTable(const std::vector<std::vector<std::string>>& rows);

// Hands what it is given on at once. Thread-safe.
class Output {
 public:
  explicit Output(std::FILE* file) : file_(file) {}

  // UNAVAILABLE that tells why when it cannot be written (a full disk).
  absl::Status Write(absl::string_view text);

 private:
  std::FILE* const file_;
};

}  // namespace pregate
