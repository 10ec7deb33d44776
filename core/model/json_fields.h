// Reading a JSON object key by key, with messages that name the file, the key, the value and what
// is allowed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace pregate {

// The object of the file at `path`. NOT_FOUND or the system's error; INVALID_ARGUMENT: not JSON, or
// not an object.
absl::StatusOr<nlohmann::json> ReadJsonObject(const std::string& path);

// One object. The first error sticks and later calls return their fallbacks, so that a reader asks
// for all keys in a row and looks at status() once. Null counts as absent.
class JsonFields {
 public:
  // `object` outlives this.
  JsonFields(const nlohmann::json& object, std::string path);

  // A whole number from `minimum` to `maximum`. Without `fallback` the key has to be there.
  uint32_t Count(const char* key,
                 uint32_t minimum,
                 uint32_t maximum,
                 std::optional<uint32_t> fallback = {});
  // A finite number in [minimum, maximum].
  double Number(const char* key,
                double minimum,
                double maximum,
                std::optional<double> fallback = {});
  bool Bool(const char* key, std::optional<bool> fallback = {});
  std::string Text(const char* key, std::optional<std::string> fallback = {});

  // Null when absent.
  const nlohmann::json* Find(const char* key) const;

  // INVALID_ARGUMENT: `key` is what it is, and `allowed` says what it may be.
  void Refuse(const char* key, absl::string_view allowed);

  const absl::Status& status() const { return status_; }

 private:
  // The value, or null when a fallback stands in for it or there is an error.
  const nlohmann::json* Get(const char* key, bool required, absl::string_view allowed);

  const nlohmann::json& object_;
  const std::string path_;
  absl::Status status_;
};

}  // namespace pregate
