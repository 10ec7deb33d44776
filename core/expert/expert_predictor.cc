#include "core/expert/expert_predictor.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/expert/predictors.h"

namespace pregate {
namespace {

using Factory = std::unique_ptr<ExpertPredictor> (*)(const PredictorShape& shape);

// Every mode that --speculation knows.
constexpr std::pair<absl::string_view, Factory> kPredictors[] = {
    {"none", nullptr},
    {"layer_minus_1", MakeLayerMinus1Predictor},
    {"multi_layer", MakeMultiLayerPredictor},
    {"gate_lookahead", MakeGateLookaheadPredictor},
    {"pregate", MakePregatePredictor},
    {"adaptive", MakeAdaptivePredictor},
};

}  // namespace

absl::Status ExpertPredictor::LoadState(absl::string_view state) {
  if (state.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(name(), " learns nothing; its state has ", state.size(), " bytes"));
}

std::vector<std::string> PredictorNames() {
  std::vector<std::string> names;
  for (const auto& [name, make] : kPredictors) names.emplace_back(name);
  return names;
}

absl::StatusOr<std::unique_ptr<ExpertPredictor>> MakePredictor(absl::string_view name,
                                                               const PredictorShape& shape) {
  for (const auto& [known, make] : kPredictors) {
    if (known != name) continue;
    if (name == "pregate" && !shape.is_pregated) {
      return absl::FailedPreconditionError("speculation: pregate needs a model with pre-gates");
    }
    if (name == "gate_lookahead" && !shape.has_gates) {
      return absl::FailedPreconditionError(
          "speculation: gate_lookahead needs gates that can be asked ahead");
    }
    return make == nullptr ? nullptr : make(shape);
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "speculation: '", name, "' is not one of ", absl::StrJoin(PredictorNames(), ", ")));
}

}  // namespace pregate
