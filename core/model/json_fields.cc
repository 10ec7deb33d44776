#include "core/model/json_fields.h"

#include <cerrno>
#include <cmath>
#include <fstream>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"

namespace pregate {
namespace {

constexpr size_t kMaxShownValue = 80;  // characters of a value in a message

std::string Show(const nlohmann::json& value) {
  std::string text = value.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
  if (text.size() > kMaxShownValue) text = absl::StrCat(text.substr(0, kMaxShownValue), "…");
  return text;
}

}  // namespace

absl::StatusOr<nlohmann::json> ReadJsonObject(const std::string& path) {
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::ErrnoToStatus(errno == 0 ? EIO : errno, absl::StrCat("opening ", path));
  const std::string text(std::istreambuf_iterator<char>(file), {});
  nlohmann::json object = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (object.is_discarded()) return absl::InvalidArgumentError(absl::StrCat(path, ": not JSON"));
  if (!object.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": not a JSON object"));
  }
  return object;
}

JsonFields::JsonFields(const nlohmann::json& object, std::string path)
    : object_(object), path_(std::move(path)) {}

const nlohmann::json* JsonFields::Find(const char* key) const {
  const auto found = object_.find(key);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

void JsonFields::Refuse(const char* key, absl::string_view allowed) {
  if (!status_.ok()) return;
  const nlohmann::json* value = Find(key);
  const std::string shown =
      value == nullptr ? std::string("is missing") : absl::StrCat("is ", Show(*value));
  status_ = absl::InvalidArgumentError(
      absl::StrCat(path_, ": ", key, " ", shown, "; allowed: ", allowed));
}

const nlohmann::json* JsonFields::Get(const char* key, bool required, absl::string_view allowed) {
  const nlohmann::json* value = Find(key);
  if (value == nullptr && required) Refuse(key, allowed);
  return status_.ok() ? value : nullptr;
}

uint32_t JsonFields::Count(const char* key,
                           uint32_t minimum,
                           uint32_t maximum,
                           std::optional<uint32_t> fallback) {
  const std::string allowed = absl::StrCat("a whole number from ", minimum, " to ", maximum);
  const nlohmann::json* value = Get(key, !fallback.has_value(), allowed);
  if (value == nullptr) return fallback.value_or(minimum);
  if (!value->is_number_unsigned() || value->get<uint64_t>() < minimum ||
      value->get<uint64_t>() > maximum) {
    Refuse(key, allowed);
    return minimum;
  }
  return value->get<uint32_t>();
}

double JsonFields::Number(const char* key,
                          double minimum,
                          double maximum,
                          std::optional<double> fallback) {
  const std::string allowed = absl::StrCat("a number from ", minimum, " to ", maximum);
  const nlohmann::json* value = Get(key, !fallback.has_value(), allowed);
  if (value == nullptr) return fallback.value_or(minimum);
  if (!value->is_number() || !(value->get<double>() >= minimum) ||
      !(value->get<double>() <= maximum)) {
    Refuse(key, allowed);
    return minimum;
  }
  return value->get<double>();
}

bool JsonFields::Bool(const char* key, std::optional<bool> fallback) {
  const nlohmann::json* value = Get(key, !fallback.has_value(), "true or false");
  if (value == nullptr) return fallback.value_or(false);
  if (!value->is_boolean()) {
    Refuse(key, "true or false");
    return false;
  }
  return value->get<bool>();
}

std::string JsonFields::Text(const char* key, std::optional<std::string> fallback) {
  const nlohmann::json* value = Get(key, !fallback.has_value(), "a string");
  if (value == nullptr) return std::move(fallback).value_or("");
  if (!value->is_string()) {
    Refuse(key, "a string");
    return "";
  }
  return value->get<std::string>();
}

}  // namespace pregate
