// One configuration of an engine in depth: how fast it reads prompts and generates, beside the
// bound that the model's matrix products set, and what its experts cost.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/forced_routing.h"
#include "bench/metered_runner.h"
#include "bench/spread.h"
#include "core/base/log.h"
#include "core/base/options.h"
#include "core/expert/routing_trace.h"
#include "core/pregate.h"

namespace pregate {

struct DecodeOptions {
  std::string text;          // that prompts are taken from; "" = random tokens
  uint32_t batch_size = 1;   // sequences side by side
  uint32_t input_len = 32;   // tokens of each one's prompt
  uint32_t output_len = 64;  // tokens of each one's answer, at least two
  uint32_t warmup = 1;       // turns left out
  uint32_t iterations = 5;   // turns
  bool has_bound = true;     // whether the bound is measured: takes memory for all experts
};

// Spreads are over the turns, in each of which the same prompts are answered; the expert figures of
// steps in which all sequences decoded side by side, 0 where there was no such step.
struct DecodeFigures {
  Spread tokens_per_second;
  std::optional<Spread> bound_tokens_per_second;
  std::optional<Spread> ratio;  // of the two, in each turn
  Spread prefill_tokens_per_second;
  Spread hit_rate;
  Spread late_hit_rate;
  Spread miss_rate;
  Spread loaded_bytes_per_token;
  Spread link_bytes_per_second;  // what was loaded, over the time of the steps
  Spread stall_share;            // of the time of the steps
  MeteredRun steps;              // of all turns that count
  uint32_t num_slots = 0;        // 0: experts are used where they lie
};

// A model, an engine over it, and the same model's products alone.
class DecodeBenchmark {
 public:
  // The errors of TorchRunner::Load and Force. `logger` outlives this.
  static absl::StatusOr<std::unique_ptr<DecodeBenchmark>> Create(const EngineOptions& options,
                                                                 ForcedRouting routing,
                                                                 const Logger& logger);

  const ModelDescription& model() const { return engine_->model(); }
  ExpertOffload::State experts() { return runner_.runner().experts().Read(); }

  // Measured: requests through Engine::Submit, answered greedily, timed from the first to the last
  // token of the sequence that starts last, so without prefill; the cache keeps what it has from
  // turn to turn. Bound: the matrix products of the same steps, with the same routing, in a bare
  // loop. INVALID_ARGUMENT: a sequence does not fit into the context, or the text is too short.
  absl::StatusOr<DecodeFigures> Run(const DecodeOptions& options);

  // Where the tokens of the last Run's prompts and answers went: a sequence for each.
  // FAILED_PRECONDITION before the first Run.
  absl::StatusOr<RoutingTrace> RecordRouting();

 private:
  DecodeBenchmark(std::string model_folder,
                  std::unique_ptr<Engine> engine,
                  MeteredRunner& runner,
                  ForcedRouting routing)
      : model_folder_(std::move(model_folder)),
        engine_(std::move(engine)),
        runner_(runner),
        routing_(std::move(routing)) {}

  // Of each prompt, then of each step of the greedy answers.
  absl::StatusOr<std::vector<Routing>> RecordRoutings();
  absl::StatusOr<double> MeasureBound(const std::vector<Routing>& routings);

  const std::string model_folder_;
  const std::unique_ptr<Engine> engine_;
  MeteredRunner& runner_;  // the engine's: used only while that is idle
  const ForcedRouting routing_;
  std::vector<std::vector<uint32_t>> prompts_;  // of the last Run
  uint32_t output_len_ = 0;                     // likewise
};

}  // namespace pregate
