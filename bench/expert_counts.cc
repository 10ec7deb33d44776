#include "bench/expert_counts.h"

#include <algorithm>

namespace pregate {
namespace {

using HintedBytes = ExpertCache::HintedBytes;

double Share(uint64_t part, uint64_t whole) {
  return whole == 0 ? 0 : static_cast<double>(part) / static_cast<double>(whole);
}

}  // namespace

std::array<uint64_t, 3> ExpertCounts::lookups() const {
  std::array<uint64_t, 3> sum = {};
  for (const std::array<uint64_t, 3>& layer : layer_lookups) {
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += layer[i];
  }
  return sum;
}

uint64_t ExpertCounts::num_lookups() const {
  const std::array<uint64_t, 3> sum = lookups();
  return sum[0] + sum[1] + sum[2];
}

double ExpertCounts::ShareOf(Lookup lookup) const {
  return Share(lookups()[static_cast<size_t>(lookup)], num_lookups());
}

double ExpertCounts::recall() const {
  uint64_t needed = num_lookups();
  if (!layer_lookups.empty()) {
    for (const uint64_t count : layer_lookups.front()) needed -= count;
  }
  return Share(correct, needed);
}
double ExpertCounts::precision() const { return Share(correct, predicted); }

ExpertCounts ExpertCounts::Since(const ExpertCounts& earlier) const {
  ExpertCounts since = *this;
  for (size_t layer = 0; layer < earlier.layer_lookups.size(); ++layer) {
    for (size_t i = 0; i < 3; ++i) {
      since.layer_lookups[layer][i] -= earlier.layer_lookups[layer][i];
    }
  }
  since.loaded_bytes -= std::min(loaded_bytes, earlier.loaded_bytes);
  since.stall_seconds -= earlier.stall_seconds;
  since.hinted.useful -= earlier.hinted.useful;
  since.hinted.late -= earlier.hinted.late;
  since.hinted.wasted -= earlier.hinted.wasted;
  since.hinted.cancelled -= earlier.hinted.cancelled;
  since.predicted -= earlier.predicted;
  since.correct -= earlier.correct;
  return since;
}

ExpertCounts& ExpertCounts::operator+=(const ExpertCounts& other) {
  layer_lookups.resize(std::max(layer_lookups.size(), other.layer_lookups.size()));
  for (size_t layer = 0; layer < other.layer_lookups.size(); ++layer) {
    for (size_t i = 0; i < 3; ++i) layer_lookups[layer][i] += other.layer_lookups[layer][i];
  }
  loaded_bytes += other.loaded_bytes;
  stall_seconds += other.stall_seconds;
  hinted.useful += other.hinted.useful;
  hinted.late += other.hinted.late;
  hinted.wasted += other.hinted.wasted;
  hinted.cancelled += other.hinted.cancelled;
  hinted.pending += other.hinted.pending;
  predicted += other.predicted;
  correct += other.correct;
  return *this;
}

ExpertCounts CountsOf(const ExpertOffload::State& state) {
  const ExpertCache::Snapshot& cache = state.cache;
  const HintedBytes& hinted = cache.hinted;
  return {.layer_lookups = cache.layer_lookups,
          .loaded_bytes =
              cache.demanded_bytes + hinted.useful + hinted.late + hinted.wasted + hinted.pending,
          .stall_seconds = cache.stall_seconds,
          .hinted = hinted,
          .predicted = state.speculation.predicted,
          .correct = state.speculation.correct};
}

}  // namespace pregate
