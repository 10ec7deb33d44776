// How a model's speed changes with the share of its experts that is resident.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/offload_comparison.h"
#include "bench/offload_turns.h"
#include "bench/spread.h"
#include "core/base/log.h"

namespace pregate {

struct SweepOptions {
  OffloadWork work;  // but its capacity, codec and batch size, which are those below
  std::vector<uint32_t> residencies = {10, 25, 50, 100};  // percent of all experts
  std::vector<std::string> codecs = {"none", "int8"};
  std::vector<uint32_t> batch_sizes = {1, 8};
  uint32_t warmup = 1;  // turns left out
  uint32_t iterations = 5;
};

struct SweepRow {
  std::string codec;
  uint32_t residency = 0;  // percent, as asked for
  OffloadRow row;          // of the work's own speculation, or a control: all_resident, simulated
  Spread ratio;            // of tokens/s to the all-resident control, turn by turn
};

struct Sweep {
  std::string model;
  uint32_t num_experts = 0;
  // Codec by codec, batch size by batch size: the control, then the residencies as given.
  std::vector<SweepRow> rows;
};

// Every combination, those of a codec and a batch size in turns with the all-resident control of
// the same. The errors of OffloadTurns. `on_turn` is called after each turn.
absl::StatusOr<Sweep> SweepOffload(const SweepOptions& options,
                                   const Logger& logger,
                                   const std::function<void()>& on_turn);

// How often `on_turn` will be called.
uint64_t NumTurns(const SweepOptions& options);

}  // namespace pregate
