// From a model folder to something that runs.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "core/base/log.h"
#include "core/base/options.h"
#include "core/engine/model_description.h"
#include "core/engine/model_runner.h"
#include "core/expert/expert_offload.h"
#include "core/expert/profile.h"

namespace pregate {

struct LoadedModel {
  ModelDescription description;
  std::unique_ptr<ModelRunner> runner;
  ExpertOffload* experts = nullptr;   // the runner's
  ProfiledModel* profiled = nullptr;  // the runner's
};

// Loads the model that `options` names with LibTorch; see TorchRunner::Load for the errors.
absl::StatusOr<LoadedModel> LoadTorchModel(const EngineOptions& options, const Logger& logger);

// How LoadTorchModel would use the memory, as a table for people, without loading.
absl::StatusOr<std::string> DescribeMemoryPlan(const EngineOptions& options);

}  // namespace pregate
