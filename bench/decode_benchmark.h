// How fast a model's answers are generated, beside the bound that its matrix products set.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "bench/comparison.h"
#include "core/base/log.h"
#include "core/base/options.h"
#include "core/model/torch_runner.h"
#include "core/pregate.h"

namespace pregate {

struct DecodeOptions {
  uint32_t batch_size = 1;   // sequences side by side
  uint32_t input_len = 32;   // tokens of each one's prompt
  uint32_t output_len = 64;  // tokens of each one's answer, at least two
  uint32_t warmup = 1;       // turns left out
  uint32_t iterations = 5;   // turns
};

// A model, an engine over it, and the same model's products alone.
class DecodeBenchmark {
 public:
  static absl::StatusOr<std::unique_ptr<DecodeBenchmark>> Create(const EngineOptions& options,
                                                                 const Logger& logger);

  const ModelDescription& model() const { return engine_->model(); }

  // Tokens per second. Measured: requests with random prompts through Engine::Submit, answered
  // greedily, timed from the first to the last token of the sequence that starts last, so without
  // prefill. Bound: the matrix products of the same steps, with the same routing, in a bare loop.
  // INVALID_ARGUMENT when a sequence does not fit into the context.
  absl::StatusOr<Comparison> Run(const DecodeOptions& options);

 private:
  explicit DecodeBenchmark(std::unique_ptr<Engine> engine, TorchRunner& runner)
      : engine_(std::move(engine)), runner_(runner) {}

  const std::unique_ptr<Engine> engine_;
  TorchRunner& runner_;  // the engine's: used only while that is idle
};

}  // namespace pregate
