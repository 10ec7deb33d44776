#include "bench/replay_cases.h"

#include <algorithm>
#include <ctime>
#include <memory>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "core/base/check.h"
#include "core/base/mutex.h"
#include "core/base/status_macros.h"
#include "core/base/thread.h"
#include "core/expert/eviction_belady.h"
#include "core/expert/slot_plan.h"

namespace pregate {
namespace {

// That the calling thread has had of a core.
double ThreadSeconds() {
  timespec time = {};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

absl::StatusOr<std::unique_ptr<EvictionPolicy>> MakePolicy(const std::string& name,
                                                           const TraceLookups& lookups) {
  if (name != kBelady) return MakeEvictionPolicy(name, lookups.shape());
  std::vector<std::vector<uint32_t>> future;
  future.reserve(lookups.size());
  for (size_t i = 0; i < lookups.size(); ++i) {
    future.emplace_back(lookups.experts(i).begin(), lookups.experts(i).end());
  }
  return std::make_unique<BeladyEviction>(future, lookups.shape());
}

absl::StatusOr<std::unique_ptr<ExpertPredictor>> MakeTracePredictor(
    const ReplayPredictor& predictor, const std::shared_ptr<const RoutingTrace>& trace) {
  if (predictor.simulated.has_value()) {
    return std::make_unique<OraclePredictor>(
        trace, predictor.simulated->recall, predictor.simulated->horizon);
  }
  return MakePredictor(predictor.mode,
                       {.num_layers = trace->num_layers,
                        .num_experts = trace->num_experts,
                        .experts_per_token = trace->experts_per_token});
}

// What a simulated predictor says is to be acted on: recall is that of the prefetches.
double AggressivenessOf(const ReplayPredictor& predictor) {
  return predictor.simulated.has_value() ? 1 : PrefetchOptions().aggressiveness;
}

// `predictor`: null for no prefetch.
absl::Status RunCase(const std::shared_ptr<const RoutingTrace>& trace,
                     const TraceLookups& lookups,
                     const ReplayPredictor* predictor,
                     uint32_t loads_per_layer,
                     ReplayCase& one) {
  PREGATE_ASSIGN_OR_RETURN(const std::unique_ptr<EvictionPolicy> policy,
                           MakePolicy(one.policy, lookups));
  const double start = ThreadSeconds();
  if (predictor == nullptr) {
    one.result = Replay(lookups, *policy, one.num_slots);
  } else {
    PREGATE_ASSIGN_OR_RETURN(const std::unique_ptr<ExpertPredictor> made,
                             MakeTracePredictor(*predictor, trace));
    const PrefetchOptions options = {.lookahead = predictor->lookahead(),
                                     .aggressiveness = AggressivenessOf(*predictor),
                                     .max_loads = loads_per_layer};
    one.result = Replay(
        lookups, *policy, one.num_slots, TraceSteps(*trace, one.num_streams), *made, options);
  }
  one.seconds = ThreadSeconds() - start;
  return absl::OkStatus();
}

absl::Status RunRecall(const std::shared_ptr<const RoutingTrace>& trace, RecallCase& one) {
  PREGATE_ASSIGN_OR_RETURN(const std::unique_ptr<ExpertPredictor> predictor,
                           MakeTracePredictor(one.predictor, trace));
  one.evaluation = EvaluatePredictor(*predictor,
                                     *trace,
                                     RealClock(),
                                     {.distance = one.distance,
                                      .streams = one.num_streams,
                                      .aggressiveness = AggressivenessOf(one.predictor)});
  return absl::OkStatus();
}

// The report of `plan`, with nothing played yet.
absl::StatusOr<ReplayReport> Lay(const std::shared_ptr<const RoutingTrace>& trace,
                                 const ReplayPlan& plan) {
  const SlotNeeds needs = {
      .num_layers = trace->num_layers, .num_experts = trace->num_experts, .slot_bytes = 1};
  std::vector<std::string> predictors = {kNoPredictor};
  for (const ReplayPredictor& predictor : plan.predictors) {
    predictors.push_back(predictor.name());
    PREGATE_RETURN_IF_ERROR(MakeTracePredictor(predictor, trace).status());
  }
  ReplayReport report;
  for (const uint32_t num_streams : plan.streams) {
    for (const std::string& capacity : plan.capacities) {
      PREGATE_RETURN_IF_ERROR(CheckReplayCapacity(capacity));
      PREGATE_ASSIGN_OR_RETURN(const uint32_t num_slots, ParseSlotCount(capacity, needs));
      for (const std::string& policy : plan.policies) {
        for (const std::string& predictor : predictors) {
          report.cases.push_back({.policy = policy,
                                  .predictor = predictor,
                                  .capacity = capacity,
                                  .num_slots = num_slots,
                                  .num_streams = num_streams,
                                  .result = {}});
        }
      }
    }
    for (const ReplayPredictor& predictor : plan.predictors) {
      for (uint32_t distance = 1; distance <= predictor.lookahead(); ++distance) {
        report.recalls.push_back({.predictor = predictor,
                                  .num_streams = num_streams,
                                  .distance = distance,
                                  .evaluation = {}});
      }
    }
  }
  return report;
}

// Runs all `work`, so many at a time; the first error.
absl::Status RunAll(const std::vector<std::function<absl::Status()>>& all,
                    uint32_t num_threads,
                    const std::function<void()>& on_done) {
  Mutex mutex;
  absl::Status status;
  {
    ThreadPool pool("replay", num_threads, all.size());
    for (const std::function<absl::Status()>& work : all) {
      const bool is_taken = pool.TryRun([&mutex, &status, &on_done, &work] {
        const absl::Status done = work();
        MutexLock lock(mutex);
        status.Update(done);
        on_done();
      });
      PREGATE_CHECK(is_taken);
    }
  }
  return status;
}

}  // namespace

double ReplayReport::lookups_per_second_per_core() const {
  double lookups = 0;
  double seconds = 0;
  for (const ReplayCase& one : cases) {
    if (one.policy == kBelady || one.predictor != kNoPredictor) continue;
    lookups += static_cast<double>(one.result.lookups);
    seconds += one.seconds;
  }
  return seconds > 0 ? lookups / seconds : 0;
}

std::vector<std::string> ReplayPolicyNames() {
  std::vector<std::string> names = EvictionPolicyNames();
  names.emplace_back(kBelady);
  return names;
}

std::vector<std::string> HistoryPredictorNames() {
  std::vector<std::string> names;
  for (const std::string& name : PredictorNames()) {
    const absl::StatusOr<std::unique_ptr<ExpertPredictor>> predictor =
        MakePredictor(name, {.num_layers = 1, .num_experts = 1, .experts_per_token = 1});
    if (predictor.ok() && *predictor != nullptr) names.push_back(name);
  }
  return names;
}

absl::Status CheckReplayCapacity(absl::string_view capacity) {
  // Sizes, which a server takes as well, say nothing here: a trace does not know its experts'.
  const SlotNeeds any = {.num_layers = 1, .num_experts = 1, .slot_bytes = 1};
  const bool is_size =
      !capacity.empty() && capacity.back() != '%' && !absl::ascii_isdigit(capacity.back());
  if (!is_size && ParseSlotCount(capacity, any).ok()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "'", capacity, "' is not a share above 0 up to 100% (25%) or a number of experts (96)"));
}

uint64_t NumReplays(const ReplayPlan& plan) {
  uint64_t per_streams =
      plan.capacities.size() * plan.policies.size() * (1 + plan.predictors.size());
  for (const ReplayPredictor& predictor : plan.predictors) per_streams += predictor.lookahead();
  return plan.streams.size() * per_streams;
}

absl::StatusOr<ReplayReport> RunReplay(const std::shared_ptr<const RoutingTrace>& trace,
                                       const ReplayPlan& plan,
                                       const std::function<void()>& on_done) {
  PREGATE_ASSIGN_OR_RETURN(ReplayReport report, Lay(trace, plan));
  std::vector<std::unique_ptr<TraceLookups>> lookups;
  lookups.reserve(plan.streams.size());
  for (const uint32_t num_streams : plan.streams) {
    lookups.push_back(std::make_unique<TraceLookups>(*trace, num_streams));
  }
  std::vector<std::function<absl::Status()>> all;
  const size_t per_streams = report.cases.size() / plan.streams.size();
  for (size_t i = 0; i < report.cases.size(); ++i) {
    const TraceLookups& its = *lookups[i / per_streams];
    const size_t predictor = i % (1 + plan.predictors.size());
    all.emplace_back([&trace, &plan, &its, predictor, &one = report.cases[i]] {
      return RunCase(trace,
                     its,
                     predictor == 0 ? nullptr : &plan.predictors[predictor - 1],
                     plan.loads_per_layer,
                     one);
    });
  }
  for (RecallCase& one : report.recalls) {
    all.emplace_back([&trace, &one] { return RunRecall(trace, one); });
  }
  PREGATE_RETURN_IF_ERROR(RunAll(all, plan.num_threads, on_done));
  return report;
}

}  // namespace pregate
