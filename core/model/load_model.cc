#include "core/model/load_model.h"

#include <utility>

#include "core/base/status_macros.h"
#include "core/model/torch_runner.h"

namespace pregate {

absl::StatusOr<LoadedModel> LoadTorchModel(const EngineOptions& options, const Logger& logger) {
  PREGATE_ASSIGN_OR_RETURN(std::unique_ptr<TorchRunner> runner, TorchRunner::Load(options, logger));
  LoadedModel model{.description = runner->description(),
                    .runner = nullptr,
                    .experts = &runner->experts(),
                    .profiled = runner->profiled()};
  model.runner = std::move(runner);
  return model;
}

absl::StatusOr<std::string> DescribeMemoryPlan(const EngineOptions& options) {
  PREGATE_ASSIGN_OR_RETURN(const MemoryPlan plan, TorchRunner::Plan(options));
  return FormatMemoryPlan(plan);
}

}  // namespace pregate
