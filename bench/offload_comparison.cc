#include "bench/offload_comparison.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/base/status_macros.h"

namespace pregate {
namespace {

std::vector<OffloadWay> WaysOf(const OffloadWork& work, bool is_pregated) {
  const std::string& capacity = work.engine.experts.capacity;
  std::vector<OffloadWay> ways;
  for (const char* mode :
       {"none", "layer_minus_1", "multi_layer", "gate_lookahead", "pregate", "adaptive"}) {
    if (mode == absl::string_view("pregate") && !is_pregated) continue;
    ways.push_back({.speculation = mode, .control = "", .capacity = capacity});
  }
  std::vector<const char*> controls = {
      "all_resident", "on_demand", "lru_only", "layer_prefetch", "oracle"};
  if (work.routing.simulated.has_value()) controls.push_back("simulated");
  for (const char* control : controls) {
    ways.push_back({.speculation = "none", .control = control, .capacity = capacity});
  }
  return ways;
}

// What the link is balanced by.
struct Balance {
  double layer_seconds = 0;  // of a layer's computing
  double layer_misses = 0;   // experts that a layer waits for, without prefetch
  double record_seconds() const { return layer_seconds / std::max(layer_misses, 1e-3); }
};

// The least time of a few turns with everything resident. What a step does behind its layers is not
// theirs: nothing is prefetched beside it.
absl::StatusOr<Balance> MeasureBalance(const OffloadWork& work, OffloadTurns& turns) {
  constexpr int kTurns = 3;
  Balance balance;
  const double num_layers = work.output_len * turns.runner().description().num_layers;
  for (int i = 0; i < kTurns; ++i) {
    PREGATE_ASSIGN_OR_RETURN(
        const OffloadTurn turn,
        turns.Run({.speculation = "none", .control = "all_resident", .capacity = ""}));
    const double seconds = turn.layers_seconds / num_layers;
    balance.layer_seconds = i == 0 ? seconds : std::min(balance.layer_seconds, seconds);
  }
  PREGATE_ASSIGN_OR_RETURN(
      const OffloadTurn turn,
      turns.Run({.speculation = "none", .control = "", .capacity = work.engine.experts.capacity}));
  balance.layer_misses =
      static_cast<double>(turn.experts.lookups()[static_cast<size_t>(Lookup::kMiss)]) / num_layers;
  return balance;
}

}  // namespace

void OffloadRow::Add(const OffloadTurn& turn) {
  num_slots = turn.num_slots;
  ++runs;
  num_tokens += turn.num_tokens;
  seconds += turn.seconds;
  experts += turn.experts;
}

uint64_t MostTurns(const OffloadComparisonOptions& options) {
  return uint64_t{options.warmup + options.iterations} *
         WaysOf(options.work, /*is_pregated=*/true).size();
}

absl::StatusOr<OffloadComparison> CompareOffload(const OffloadComparisonOptions& options,
                                                 const Logger& logger,
                                                 const std::function<void()>& on_turn) {
  OffloadWork work = options.work;
  OffloadComparison result;
  if (options.balance_link) {
    work.engine.experts.simulated_link.clear();
    PREGATE_ASSIGN_OR_RETURN(const std::unique_ptr<OffloadTurns> unpaced,
                             OffloadTurns::Create(work, logger));
    PREGATE_ASSIGN_OR_RETURN(const Balance balance, MeasureBalance(work, *unpaced));
    const uint64_t record_bytes = unpaced->state().cache.slot_bytes;
    result.layer_seconds = balance.layer_seconds;
    result.layer_misses = balance.layer_misses;
    result.record_seconds = balance.record_seconds();
    work.engine.experts.simulated_link =
        absl::StrFormat("%.0fB/s,0us", static_cast<double>(record_bytes) / result.record_seconds);
  }
  PREGATE_ASSIGN_OR_RETURN(const std::unique_ptr<OffloadTurns> turns,
                           OffloadTurns::Create(work, logger));
  const ExpertOffload::State state = turns->state();
  result.model = state.model.name;
  result.codec = state.codec;
  result.num_experts = state.model.num_layers * state.model.num_experts;
  result.link = work.engine.experts.simulated_link;

  const std::vector<OffloadWay> ways = WaysOf(work, state.model.is_pregated);
  for (const OffloadWay& way : ways) {
    OffloadRow& row = result.rows.emplace_back();
    row.speculation = way.speculation;
    row.control = way.control;
    row.batch_size = work.batch_size;
  }
  std::vector<std::vector<double>> rates(ways.size());
  for (uint32_t round = 0; round < options.warmup + options.iterations; ++round) {
    for (size_t i = 0; i < ways.size(); ++i) {
      PREGATE_ASSIGN_OR_RETURN(const OffloadTurn turn, turns->Run(ways[i]));
      on_turn();
      if (round < options.warmup) continue;
      result.rows[i].Add(turn);
      rates[i].push_back(turn.tokens_per_second());
    }
  }
  for (size_t i = 0; i < ways.size(); ++i) {
    result.rows[i].tokens_per_second = SpreadOf(std::move(rates[i]));
  }
  return result;
}

}  // namespace pregate
