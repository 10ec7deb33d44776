// Speculation modes side by side on one model, with the controls that say what they are worth.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/expert_counts.h"
#include "bench/offload_turns.h"
#include "bench/spread.h"
#include "core/base/log.h"

namespace pregate {

struct OffloadComparisonOptions {
  OffloadWork work;  // with the capacity and the link of the modes
  // Pace the link so that what a layer misses without prefetch takes as long as it computes.
  bool balance_link = false;
  uint32_t warmup = 1;  // turns left out
  uint32_t iterations = 5;
};

// What one way of running the cache came to, over the turns that count.
struct OffloadRow {
  std::string speculation;  // mode
  std::string control;      // "" for a mode, else that of OffloadWay
  uint32_t num_slots = 0;
  uint32_t batch_size = 0;
  uint32_t runs = 0;
  Spread tokens_per_second;
  uint64_t num_tokens = 0;  // of all runs, as are the next two
  double seconds = 0;
  ExpertCounts experts;

  void Add(const OffloadTurn& turn);  // all but tokens_per_second
  double stall_share() const { return experts.stall_seconds / seconds; }
};

struct OffloadComparison {
  std::string model;
  std::string codec;
  uint32_t num_experts = 0;   // of the model
  std::string link;           // as --simulated-link takes it; "" = unpaced
  double record_seconds = 0;  // that a record takes on that link; 0 = unpaced
  double layer_seconds = 0;   // of a layer's computing, all resident; 0 when not measured
  double layer_misses = 0;    // of a layer without prefetch, with it
  std::vector<OffloadRow> rows;
};

// Decodes the same tokens in every way, in turns, and checks that every way gave the same logits to
// the bit: INTERNAL when not. `on_turn` is called after each turn of a way.
absl::StatusOr<OffloadComparison> CompareOffload(const OffloadComparisonOptions& options,
                                                 const Logger& logger,
                                                 const std::function<void()>& on_turn);

// How often `on_turn` will be called at most: a model without pre-gates has a way less.
uint64_t MostTurns(const OffloadComparisonOptions& options);

}  // namespace pregate
