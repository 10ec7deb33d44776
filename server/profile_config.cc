#include "server/profile_config.h"

#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "core/base/check.h"
#include "google/protobuf/descriptor.h"
#include "pregate/v1/config.pb.h"

namespace pregate {
namespace {

void AddSetting(const std::string& name, const std::string& value, std::string& text) {
  const google::protobuf::FieldDescriptor* const field =
      v1::Config::descriptor()->FindFieldByName(name);
  PREGATE_CHECK(field != nullptr, "config.proto has no field ", name);
  const bool is_text = field->type() == google::protobuf::FieldDescriptor::TYPE_STRING;
  const char* const quote = is_text ? "\"" : "";
  absl::StrAppend(&text, name, ": ", quote, absl::Utf8SafeCEscape(value), quote, "\n");
}

void AddComment(absl::string_view comment, std::string& text) {
  for (const absl::string_view line : absl::StrSplit(comment, '\n')) {
    absl::StrAppend(&text, line.empty() ? "#" : "# ", line, "\n");
  }
}

}  // namespace

std::vector<Flag> NoteSettings(std::vector<Flag> flags, Settings& given) {
  for (Flag& flag : flags) {
    flag.set = [&given,
                name = absl::StrReplaceAll(flag.name, {{"-", "_"}}),
                set = std::move(flag.set)](absl::string_view text) {
      absl::Status status = set(text);
      if (status.ok()) given[name] = std::string(text);
      return status;
    };
  }
  return flags;
}

std::string FormatProfileConfig(const Engine::Profile& profile, const Settings& given) {
  std::string text;
  AddComment("A device profile, and the settings that follow: for pregated --config FILE.\n", text);
  AddComment(FormatProfile(profile.device), text);
  Settings kept = given;
  for (const Recommendation& recommendation : profile.recommendations) {
    kept.erase(recommendation.flag);
  }
  for (const auto& [name, value] : kept) AddSetting(name, value, text);
  for (const Recommendation& recommendation : profile.recommendations) {
    text += '\n';
    if (recommendation.value.empty()) {
      AddComment(absl::StrCat("No ", recommendation.flag, ": ", Explain(recommendation), "."),
                 text);
      continue;
    }
    AddComment(absl::StrCat(Explain(recommendation), "."), text);
    AddSetting(recommendation.flag, recommendation.value, text);
  }
  return text;
}

}  // namespace pregate
