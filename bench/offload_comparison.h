// Speculation modes side by side on one model, with the controls that say what they are worth.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/comparison.h"
#include "core/base/log.h"
#include "core/base/options.h"
#include "core/expert/expert_cache.h"

namespace pregate {

struct OffloadComparisonOptions {
  EngineOptions engine;       // with the capacity, the link and the eviction of the modes
  bool balance_link = false;  // pace the link so that a record takes as long as a layer's computing
  std::string text;  // what sequences read, at least as many tokens as they need; "" = random
  uint32_t batch_size = 1;
  uint32_t input_len = 32;   // tokens of each prompt
  uint32_t output_len = 64;  // steps that are timed
  uint32_t settling = 16;    // steps before them in each turn: the cache is not cold
  uint32_t warmup = 1;       // turns left out
  uint32_t iterations = 5;
};

// What one way of running the cache came to, over the turns that count.
struct OffloadRow {
  std::string speculation;  // mode
  std::string control;      // "" for a mode, else all_resident, on_demand, lru_only, layer_prefetch
                            // or oracle
  uint32_t num_slots = 0;
  uint32_t batch_size = 0;
  uint32_t runs = 0;
  Spread tokens_per_second;
  std::array<uint64_t, 3> lookups = {};  // by Lookup; of all runs, as are the rest
  uint64_t loaded_bytes = 0;             // demanded and prefetched
  double stall_seconds = 0;
  double seconds = 0;
  ExpertCache::HintedBytes prefetched;
};

struct OffloadComparison {
  std::string model;
  std::string codec;
  uint32_t num_experts = 0;   // of the model
  std::string link;           // as --simulated-link takes it; "" = unpaced
  double record_seconds = 0;  // that a record takes on that link; 0 = unpaced
  double layer_seconds = 0;   // of a layer's computing, all resident; 0 when not measured
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
