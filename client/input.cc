#include "client/input.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace pregate {
namespace {

absl::StatusOr<std::string> ReadAll(std::FILE* file, absl::string_view name) {
  std::string text;
  char buffer[1 << 16];
  size_t count = 0;
  while ((count = std::fread(buffer, 1, sizeof(buffer), file)) > 0) text.append(buffer, count);
  if (std::ferror(file) != 0) {
    return absl::UnavailableError(absl::StrCat("cannot read ", name, ": ", std::strerror(errno)));
  }
  if (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

}  // namespace

absl::StatusOr<std::string> ReadTextFile(const std::string& path) {
  std::FILE* const file = std::fopen(path.c_str(), "rb");
  if (file == nullptr) {
    return absl::NotFoundError(absl::StrCat("cannot open ", path, ": ", std::strerror(errno)));
  }
  absl::StatusOr<std::string> text = ReadAll(file, path);
  std::fclose(file);
  return text;
}

void TextInput::AddTo(CLI::App& app, const std::string& name, const std::string& help) {
  name_ = name;
  // Callbacks on raw results: CLI11 would take an empty text for none.
  const auto store = [](std::optional<std::string>& target) -> CLI::callback_t {
    return [&target](const CLI::results_t& results) {
      target = results.front();
      return true;
    };
  };
  app.add_option(name, store(argument_), help)->type_name("");
  app.add_option("--file", store(file_), "read it from FILE")->type_name("FILE");
}

absl::StatusOr<std::string> TextInput::Read() const {
  if (argument_.has_value() && file_.has_value()) {
    return absl::InvalidArgumentError(absl::StrCat("both ", name_, " and --file are given"));
  }
  if (file_.has_value()) return ReadTextFile(*file_);
  if (argument_.has_value() && *argument_ != "-") return *argument_;
  if (!argument_.has_value() && isatty(STDIN_FILENO) == 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("no ", name_, ": give it as an argument, with --file or through a pipe"));
  }
  return ReadAll(stdin, "stdin");
}

absl::StatusOr<std::vector<uint32_t>> ParseTokenIds(absl::string_view text) {
  std::vector<uint32_t> ids;
  for (const absl::string_view word :
       absl::StrSplit(text, absl::ByAnyChar(", \t\r\n"), absl::SkipEmpty())) {
    uint32_t id = 0;
    if (!absl::SimpleAtoi(word, &id)) {
      return absl::InvalidArgumentError(absl::StrCat("\"", word, "\" is not a token id"));
    }
    ids.push_back(id);
  }
  return ids;
}

}  // namespace pregate
