// Where a subcommand's text comes from: an argument, a file or a pipe.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace pregate {

class TextInput {
 public:
  // Adds the argument `name` (upper case) and --file to `app`, which must not outlive this.
  void AddTo(CLI::App& app, const std::string& name, const std::string& help);

  // The text. One newline at its end is dropped, unless it was an argument. INVALID_ARGUMENT when
  // both are given, or neither and stdin is a terminal; another code when it cannot be read.
  absl::StatusOr<std::string> Read() const;

 private:
  std::string name_;
  std::optional<std::string> argument_;
  std::optional<std::string> file_;
};

// A file's text, without one newline at its end.
absl::StatusOr<std::string> ReadTextFile(const std::string& path);

// "1 2 3" or "1,2,3", as `pregate tokenize` prints them. INVALID_ARGUMENT names what is no token
// id.
absl::StatusOr<std::vector<uint32_t>> ParseTokenIds(absl::string_view text);

}  // namespace pregate
