// What a stretch of steps asked of a model's experts.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "core/expert/expert_offload.h"

namespace pregate {

// Counted since the start of a run, or between two moments of it.
struct ExpertCounts {
  std::vector<std::array<uint64_t, 3>> layer_lookups;  // [num_layers], by Lookup
  uint64_t loaded_bytes = 0;                           // demanded and prefetched
  double stall_seconds = 0;
  ExpertCache::HintedBytes hinted;
  uint64_t predicted = 0;  // (step, layer, expert) predictions acted on
  uint64_t correct = 0;    // of them, needed

  std::array<uint64_t, 3> lookups() const;  // of all layers, by Lookup
  uint64_t num_lookups() const;
  // Of all look-ups the share that ended so; 0 when there were none.
  double ShareOf(Lookup lookup) const;
  // Of the look-ups behind the first layer, of which nothing can be known before, the share that
  // had been predicted and acted on; of the predictions acted on the share that came true. 0 when
  // there were none.
  double recall() const;
  double precision() const;

  // From `earlier`, of the same run, to this. Hinted bytes that are pending stay those of the end;
  // a hint called off between the two counts as if it had never been loaded.
  ExpertCounts Since(const ExpertCounts& earlier) const;
  ExpertCounts& operator+=(const ExpertCounts& other);
};

ExpertCounts CountsOf(const ExpertOffload::State& state);

}  // namespace pregate
