#include "core/pregate.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/check.h"
#include "core/base/status_macros.h"
#include "core/engine/engine_loop.h"

namespace pregate {
namespace {

absl::Status CheckLimits(const ModelRunner::Limits& limits,
                         const EngineOptions& options,
                         const ModelDescription& model) {
  const std::pair<absl::string_view, uint32_t> positive[] = {
      {"the model's vocab_size", model.vocab_size},
      {"the model's max_context", model.max_context},
      {"the runner's max_context", limits.max_context},
      {"the runner's kv_block_size", limits.kv_block_size},
      {"the runner's num_kv_blocks", limits.num_kv_blocks},
      {"max_batch_tokens", options.max_batch_tokens},
      {"max_running", options.max_running},
  };
  for (const auto& [name, value] : positive) {
    if (value == 0) return absl::InvalidArgumentError(absl::StrCat(name, " is 0"));
  }
  if (limits.vocab_size != model.vocab_size) {
    return absl::InvalidArgumentError(absl::StrCat("the runner's vocabulary has ",
                                                   limits.vocab_size,
                                                   " tokens, the model's ",
                                                   model.vocab_size));
  }
  return absl::OkStatus();
}

uint32_t MaxContext(const ModelRunner::Limits& limits,
                    const EngineOptions& options,
                    const ModelDescription& model) {
  const uint64_t cache = uint64_t{limits.num_kv_blocks} * limits.kv_block_size;
  uint64_t context = std::min({uint64_t{model.max_context}, uint64_t{limits.max_context}, cache});
  if (options.max_context > 0) context = std::min(context, uint64_t{options.max_context});
  return static_cast<uint32_t>(context);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> Engine::Assemble(Parts parts,
                                                         const EngineOptions& options,
                                                         const Logger& logger) {
  PREGATE_CHECK(parts.tokenizer != nullptr && parts.runner != nullptr && parts.clock != nullptr);
  const ModelRunner::Limits& limits = parts.runner->limits();
  if (absl::Status status = CheckLimits(limits, options, parts.model); !status.ok()) return status;
  parts.model.max_context = MaxContext(limits, options, parts.model);
  return std::unique_ptr<Engine>(new Engine(std::move(parts), options, logger));
}

Engine::Engine(Parts parts, const EngineOptions& options, const Logger& logger)
    : model_(std::move(parts.model)),
      clock_(std::move(parts.clock)),
      tokenizer_(std::move(parts.tokenizer)),
      chat_template_(std::move(parts.chat_template)),
      runner_(std::move(parts.runner)),
      experts_(parts.experts),
      profiled_(parts.profiled),
      loop_(std::make_unique<EngineLoop>(
          EngineLoop::Options{.max_batch_tokens = options.max_batch_tokens,
                              .max_running = options.max_running,
                              .max_queued = options.max_queued},
          *runner_,
          *clock_,
          logger)) {}

Engine::~Engine() = default;

absl::StatusOr<std::shared_ptr<ResponseStream>> Engine::Submit(Request request) {
  absl::Status status = ValidateRequest(request, model_.vocab_size, model_.max_context);
  if (!status.ok()) return status;
  return loop_->Submit(std::move(request));
}

void Engine::Shutdown(TimePoint deadline) { loop_->Shutdown(deadline); }

absl::StatusOr<Engine::Profile> Engine::ProfileDevice(const OnProfileStep& on_step) {
  if (experts_ == nullptr || profiled_ == nullptr) {
    return absl::FailedPreconditionError("the model has no experts to profile the device with");
  }
  Profile profile;
  PREGATE_ASSIGN_OR_RETURN(profile.device, experts_->MeasureDevice(*profiled_, on_step));
  PREGATE_ASSIGN_OR_RETURN(profile.recommendations, Recommend(profile.device, *profiled_));
  return profile;
}

Engine::Load Engine::load() const { return loop_->load(); }

absl::Status Engine::health() const { return loop_->health(); }

void Engine::VisitStats(StatsVisitor& visitor) const { loop_->VisitStats(visitor); }

}  // namespace pregate
