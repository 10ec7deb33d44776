#include "tools/read_json.h"

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/storage/mapped_file.h"

namespace pregate {

absl::StatusOr<nlohmann::json> ReadJson(const std::string& path) {
  PREGATE_ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(path));
  const char* text = reinterpret_cast<const char*>(file.bytes().data());
  nlohmann::json json =
      nlohmann::json::parse(text, text + file.bytes().size(), nullptr, /*allow_exceptions=*/false);
  if (!json.is_object())
    return absl::InvalidArgumentError(absl::StrCat(path, ": not a JSON object"));
  return json;
}

}  // namespace pregate
