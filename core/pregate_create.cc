// The one part of the facade that needs LibTorch, in a library of its own (pregate_create).
#include <memory>
#include <utility>

#include "core/base/status_macros.h"
#include "core/model/load_model.h"
#include "core/pregate.h"

namespace pregate {

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(const EngineOptions& options,
                                                       const Logger& logger) {
  Parts parts;
  // What is quick to be refused comes first.
  PREGATE_ASSIGN_OR_RETURN(parts.tokenizer, Tokenizer::Load(options.model));
  absl::StatusOr<std::unique_ptr<ChatTemplate>> chat_template = ChatTemplate::Load(options.model);
  if (chat_template.ok()) {
    parts.chat_template = *std::move(chat_template);
  } else if (!absl::IsNotFound(chat_template.status())) {
    return chat_template.status();
  }
  PREGATE_ASSIGN_OR_RETURN(LoadedModel loaded, LoadTorchModel(options, logger));
  parts.model = std::move(loaded.description);
  parts.runner = std::move(loaded.runner);
  parts.experts = loaded.experts;
  parts.profiled = loaded.profiled;
  parts.clock = std::make_unique<RealClock>();
  return Assemble(std::move(parts), options, logger);
}

absl::StatusOr<std::string> Engine::DescribePlan(const EngineOptions& options) {
  return DescribeMemoryPlan(options);
}

}  // namespace pregate
