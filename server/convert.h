// From a request on the wire to one of the engine's, with every limit checked.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/engine/request.h"
#include "core/pregate.h"
#include "pregate/v1/inference.pb.h"

namespace pregate {

struct Generation {
  Request request;
  std::vector<std::string> stop;  // for TextStream
};

// Checks all fields of `wire`, then tokenizes. INVALID_ARGUMENT names every field that is wrong,
// NOT_FOUND another model. Takes time in proportion to the text. Without a seed, `random_seed` is
// taken.
absl::StatusOr<Generation> ConvertRequest(const v1::GenerateRequest& wire,
                                          std::optional<TimePoint> deadline,
                                          uint64_t random_seed,
                                          const Engine& engine);

// NOT_FOUND unless `name` is "" or the served model's.
absl::Status CheckModel(const std::string& name, const ModelDescription& model);

// The text that may be tokenized: INVALID_ARGUMENT at `field` when it is longer than any prompt of
// the model can be.
absl::Status CheckTextSize(const std::string& field,
                           const std::string& text,
                           const ModelDescription& model);

v1::Model ConvertModel(const Engine& engine);

// `request_id` as the log may show it: printable ASCII, the rest replaced.
std::string LoggableId(const std::string& request_id);

}  // namespace pregate
