#include "bench/offload_sweep.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"

namespace pregate {
namespace {

// One codec and one batch size: the control and the residencies, in turns.
absl::Status SweepResidencies(const SweepOptions& options,
                              const OffloadWork& work,
                              const Logger& logger,
                              const std::function<void()>& on_turn,
                              Sweep& sweep) {
  PREGATE_ASSIGN_OR_RETURN(const std::unique_ptr<OffloadTurns> turns,
                           OffloadTurns::Create(work, logger));
  const ExpertOffload::State state = turns->state();
  sweep.model = state.model.name;
  sweep.num_experts = state.model.num_layers * state.model.num_experts;
  std::vector<OffloadWay> ways = {
      {.speculation = "none", .control = "all_resident", .capacity = ""}};
  std::vector<SweepRow> rows(1 + options.residencies.size());
  rows.front().residency = 100;
  for (size_t i = 0; i < options.residencies.size(); ++i) {
    const bool is_simulated = work.routing.simulated.has_value();
    ways.push_back({.speculation = is_simulated ? "none" : state.speculation.mode,
                    .control = is_simulated ? "simulated" : "",
                    .capacity = absl::StrCat(options.residencies[i], "%")});
    rows[i + 1].residency = options.residencies[i];
  }
  std::vector<std::vector<double>> rates(ways.size());
  std::vector<std::vector<double>> ratios(ways.size());
  for (uint32_t round = 0; round < options.warmup + options.iterations; ++round) {
    for (size_t i = 0; i < ways.size(); ++i) {
      PREGATE_ASSIGN_OR_RETURN(const OffloadTurn turn, turns->Run(ways[i]));
      on_turn();
      if (round < options.warmup) continue;
      rows[i].row.Add(turn);
      rates[i].push_back(turn.tokens_per_second());
      ratios[i].push_back(rates[i].back() / rates.front().back());
    }
  }
  for (size_t i = 0; i < ways.size(); ++i) {
    SweepRow& row = rows[i];
    row.codec = state.codec;
    row.row.speculation = ways[i].speculation;
    row.row.control = ways[i].control;
    row.row.batch_size = work.batch_size;
    row.row.tokens_per_second = SpreadOf(std::move(rates[i]));
    row.ratio = SpreadOf(std::move(ratios[i]));
    sweep.rows.push_back(std::move(row));
  }
  return absl::OkStatus();
}

}  // namespace

uint64_t NumTurns(const SweepOptions& options) {
  return uint64_t{options.warmup + options.iterations} * (1 + options.residencies.size()) *
         options.codecs.size() * options.batch_sizes.size();
}

absl::StatusOr<Sweep> SweepOffload(const SweepOptions& options,
                                   const Logger& logger,
                                   const std::function<void()>& on_turn) {
  Sweep sweep;
  OffloadWork work = options.work;
  for (const std::string& codec : options.codecs) {
    for (const uint32_t batch_size : options.batch_sizes) {
      work.engine.experts.codec = codec;
      work.engine.max_running = std::max(options.work.engine.max_running, batch_size);
      work.batch_size = batch_size;
      PREGATE_RETURN_IF_ERROR(SweepResidencies(options, work, logger, on_turn, sweep));
    }
  }
  return sweep;
}

}  // namespace pregate
