// The same steps run again and again, with the expert cache set up in one way or another.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bench/expert_counts.h"
#include "bench/forced_routing.h"
#include "bench/lockstep_decoder.h"
#include "core/base/log.h"
#include "core/base/options.h"
#include "core/model/torch_runner.h"

namespace pregate {

// Sequences that read a text side by side, each step a token of each.
struct OffloadWork {
  EngineOptions engine;   // with the eviction of the ways and the settings of their speculation
  ForcedRouting routing;  // of all steps
  std::string text;       // what sequences read, at least as many tokens as they need; "" = random
  uint32_t batch_size = 1;
  uint32_t input_len = 32;   // tokens of each prompt
  uint32_t output_len = 64;  // steps that are timed
  uint32_t settling = 16;    // steps before them in each turn: the cache is not cold
};

// A way of running the cache.
struct OffloadWay {
  std::string speculation;  // mode; of a control that brings its own predictor "none"
  std::string control;      // "" for a mode, else all_resident, on_demand, lru_only,
                            // layer_prefetch, oracle or simulated
  std::string capacity;     // as --expert-capacity takes it; of all_resident all
};

struct OffloadTurn {
  uint32_t num_slots = 0;
  uint64_t num_tokens = 0;
  double seconds = 0;
  double layers_seconds = 0;  // of them, in the layers, stalls included
  ExpertCounts experts;
  double tokens_per_second() const { return static_cast<double>(num_tokens) / seconds; }
};

// Used by one thread.
class OffloadTurns {
 public:
  // Loads the model. INVALID_ARGUMENT: the codec "adaptive", whose logits depend on how long steps
  // wait. `work` and `logger` outlive this.
  static absl::StatusOr<std::unique_ptr<OffloadTurns>> Create(const OffloadWork& work,
                                                              const Logger& logger);

  // One turn, which sets up the cache for `way` and starts cold; the steps after the settling
  // count. Where every expert has a slot, all steps are run once before: nothing is left to load,
  // but for the oracle, whose eviction knows one turn. INTERNAL when its logits are not to the bit
  // those of the turns before.
  absl::StatusOr<OffloadTurn> Run(const OffloadWay& way);

  const TorchRunner& runner() const { return *runner_; }
  ExpertOffload::State state() const { return runner_->experts().Read(); }

 private:
  OffloadTurns(const OffloadWork& work,
               std::unique_ptr<TorchRunner> runner,
               LockstepDecoder decoder)
      : work_(work), runner_(std::move(runner)), decoder_(std::move(decoder)) {}

  // From the prompts to where the steps begin that count.
  absl::Status Settle();
  absl::Status RunSteps();
  absl::Status SetUp(const OffloadWay& way);
  absl::Status SetSpeculation(const OffloadWay& way);
  absl::Status UseOracle();
  absl::Status CheckLogits(const OffloadWay& way);

  const OffloadWork& work_;
  const std::unique_ptr<TorchRunner> runner_;
  LockstepDecoder decoder_;
  std::vector<Routing> routings_;  // of every step of a turn, prompts included; for the oracle
  std::optional<uint64_t> logits_digest_;
};

}  // namespace pregate
