// Pregate's engine behind one class: load a model, submit requests, read the statistics. This and
// core/engine/{request, response_stream}.h, core/text and core/base are all that a server needs; no
// transport is known here.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/base/options.h"
#include "core/base/stats.h"
#include "core/engine/engine_load.h"
#include "core/engine/model_description.h"
#include "core/engine/model_runner.h"
#include "core/engine/request.h"
#include "core/engine/response_stream.h"
#include "core/expert/expert_offload.h"
#include "core/expert/profile.h"
#include "core/expert/recommendation.h"
#include "core/text/chat_template.h"
#include "core/text/tokenizer.h"

namespace pregate {

class EngineLoop;

// All methods are thread-safe, but for ProfileDevice as it says.
class Engine {
 public:
  // What an engine is put together from. chat_template may be null: the model has none.
  struct Parts {
    ModelDescription model;
    std::unique_ptr<Tokenizer> tokenizer;
    std::unique_ptr<ChatTemplate> chat_template;
    std::unique_ptr<ModelRunner> runner;
    std::unique_ptr<Clock> clock;
    ExpertOffload* experts = nullptr;   // the runner's; null when it keeps none
    ProfiledModel* profiled = nullptr;  // the runner's; null when it cannot be profiled
  };

  using Load = EngineLoad;

  // Loads the model of `options` and starts the engine. Errors name the file, tensor or option at
  // fault. `logger` outlives the engine. Needs LibTorch: link pregate_create, else pregate_core.
  static absl::StatusOr<std::unique_ptr<Engine>> Create(const EngineOptions& options,
                                                        const Logger& logger);

  // How Create would use the memory, as a table for people, without loading the model. Needs
  // LibTorch.
  static absl::StatusOr<std::string> DescribePlan(const EngineOptions& options);

  // Starts an engine over parts made elsewhere, none of which is null but chat_template. The
  // model's context becomes the least of its own, the runner's, the KV cache's and that of
  // `options`, whose max_* are all that is read of it. INVALID_ARGUMENT: a limit that is 0, or a
  // runner of another vocabulary. `logger` outlives the engine.
  static absl::StatusOr<std::unique_ptr<Engine>> Assemble(Parts parts,
                                                          const EngineOptions& options,
                                                          const Logger& logger);

  // Cuts what is still running with UNAVAILABLE; see Shutdown for a gentler end.
  ~Engine();

  // Queues a request. INVALID_ARGUMENT: an empty prompt, a token id out of range, prompt +
  // max_tokens over the context, a sampling value out of its range. RESOURCE_EXHAUSTED: the queue
  // is full. UNAVAILABLE: shutting down. INTERNAL: health() is not OK.
  absl::StatusOr<std::shared_ptr<ResponseStream>> Submit(Request request);

  // Refuses new requests and returns when the last stream has ended. What still runs at the first
  // step boundary at or after `deadline` is cut with UNAVAILABLE.
  void Shutdown(TimePoint deadline);

  const ModelDescription& model() const { return model_; }
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  const ChatTemplate* chat_template() const { return chat_template_.get(); }
  const Clock& clock() const { return *clock_; }
  // What operators see and change of the experts; null when the runner keeps none.
  ExpertOffload* experts() const { return experts_; }

  struct Profile {
    DeviceProfile device;
    std::vector<Recommendation> recommendations;
  };
  // Measures the device and what the model's experts cost on it, beside whatever runs: see
  // MeasureDevice and Recommend. One call at a time. FAILED_PRECONDITION: there is no such model.
  absl::StatusOr<Profile> ProfileDevice(const OnProfileStep& on_step);

  Load load() const;
  // INTERNAL when the engine cannot go on (a device fault): every stream has been ended with it.
  absl::Status health() const;
  void VisitStats(StatsVisitor& visitor) const;

 private:
  Engine(Parts parts, const EngineOptions& options, const Logger& logger);

  const ModelDescription model_;
  const std::unique_ptr<Clock> clock_;
  const std::unique_ptr<Tokenizer> tokenizer_;
  const std::unique_ptr<ChatTemplate> chat_template_;
  const std::unique_ptr<ModelRunner> runner_;
  ExpertOffload* const experts_;
  ProfiledModel* const profiled_;
  std::unique_ptr<EngineLoop> loop_;  // last: its thread uses all of the above
};

}  // namespace pregate
