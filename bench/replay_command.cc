#include <algorithm>
#include <ctime>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "bench/subcommands.h"
#include "bench/trace_json.h"
#include "core/base/mutex.h"
#include "core/base/status_macros.h"
#include "core/base/thread.h"
#include "core/expert/eviction_belady.h"
#include "core/expert/replay.h"
#include "core/expert/slot_plan.h"
#include "nlohmann/json.hpp"
#include "tools/cli.h"

namespace pregate {
namespace {

struct ReplayCommand {
  std::string trace;
  std::string capacities = "25%,50%";
  std::string streams = "1";
  std::string policies = "ewma,lru,belady";
  std::string convert;
  uint32_t threads = 0;
  bool json = false;
};

// One policy at one capacity and one number of streams.
struct Case {
  std::string policy;
  std::string capacity;
  uint32_t num_slots = 0;
  uint32_t num_streams = 0;
  const TraceLookups* lookups = nullptr;
  ReplayResult result;
  double seconds = 0;
};

absl::StatusOr<std::unique_ptr<EvictionPolicy>> MakePolicy(const std::string& name,
                                                           const TraceLookups& lookups) {
  if (name != "belady") return MakeEvictionPolicy(name, lookups.shape());
  std::vector<std::vector<uint32_t>> future;
  for (size_t i = 0; i < lookups.size(); ++i) {
    const absl::Span<const uint32_t> experts = lookups.experts(i);
    future.emplace_back(experts.begin(), experts.end());
  }
  return std::make_unique<BeladyEviction>(future, lookups.shape());
}

absl::Status CheckPolicy(const std::string& name) {
  std::vector<std::string> names = EvictionPolicyNames();
  names.emplace_back("belady");
  if (std::find(names.begin(), names.end(), name) != names.end()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("policy: '", name, "' is not one of ", absl::StrJoin(names, ", ")));
}

absl::StatusOr<std::vector<uint32_t>> ParseStreams(absl::string_view text) {
  std::vector<uint32_t> streams;
  for (const absl::string_view piece : absl::StrSplit(text, ',')) {
    uint32_t count = 0;
    if (!absl::SimpleAtoi(piece, &count) || count == 0 || count > 65536) {
      return absl::InvalidArgumentError(
          absl::StrCat("streams: '", piece, "' is not a whole number from 1 to 65536"));
    }
    streams.push_back(count);
  }
  return streams;
}

// That the calling thread has had of a core.
double ThreadSeconds() {
  timespec time = {};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// Each case on some thread, one after another.
absl::Status RunCases(uint32_t num_threads, std::vector<Case>& cases) {
  Progress progress("replaying", cases.size());
  Mutex mutex;
  absl::Status status;
  {
    ThreadPool pool("replay", num_threads, cases.size());
    for (Case& one : cases) {
      const bool taken = pool.TryRun([&one, &mutex, &status, &progress] {
        absl::StatusOr<std::unique_ptr<EvictionPolicy>> policy =
            MakePolicy(one.policy, *one.lookups);
        if (policy.ok()) {
          const double start = ThreadSeconds();
          one.result = Replay(*one.lookups, **policy, one.num_slots);
          one.seconds = ThreadSeconds() - start;
        }
        MutexLock lock(mutex);
        status.Update(policy.status());
        progress.Advance(1);
      });
      PREGATE_CHECK(taken);
    }
  }
  return status;
}

double LookupsPerSecond(const std::vector<Case>& cases) {
  double lookups = 0;
  double seconds = 0;
  for (const Case& one : cases) {
    // Belady's optimum is no policy that a server runs.
    if (one.policy == "belady") continue;
    lookups += static_cast<double>(one.result.lookups);
    seconds += one.seconds;
  }
  return seconds > 0 ? lookups / seconds : 0;
}

void PrintTable(const std::vector<Case>& cases) {
  std::cout << absl::StrFormat("%-8s %8s %7s %8s %10s %10s %9s\n",
                               "policy",
                               "capacity",
                               "slots",
                               "streams",
                               "lookups",
                               "misses",
                               "hit rate");
  for (const Case& one : cases) {
    std::cout << absl::StrFormat("%-8s %8s %7d %8d %10d %10d %9.4f\n",
                                 one.policy,
                                 one.capacity,
                                 one.num_slots,
                                 one.num_streams,
                                 one.result.lookups,
                                 one.result.misses(),
                                 one.result.hit_rate());
  }
  std::cout << absl::StrFormat("%.1f million look-ups per second and core\n",
                               LookupsPerSecond(cases) / 1e6);
}

void PrintJson(const RoutingTrace& trace, const std::vector<Case>& cases) {
  nlohmann::ordered_json results = nlohmann::ordered_json::array();
  for (const Case& one : cases) {
    results.push_back({{"policy", one.policy},
                       {"capacity", one.capacity},
                       {"slots", one.num_slots},
                       {"streams", one.num_streams},
                       {"lookups", one.result.lookups},
                       {"hits", one.result.hits},
                       {"misses", one.result.misses()},
                       {"hit_rate", one.result.hit_rate()}});
  }
  uint64_t num_tokens = 0;
  for (const RoutingTrace::Sequence& sequence : trace.sequences) {
    num_tokens += trace.num_tokens(sequence);
  }
  const nlohmann::ordered_json json = {{"trace",
                                        {{"model", trace.model},
                                         {"num_layers", trace.num_layers},
                                         {"num_experts", trace.num_experts},
                                         {"experts_per_token", trace.experts_per_token},
                                         {"sequences", trace.sequences.size()},
                                         {"tokens", num_tokens}}},
                                       {"results", results},
                                       {"lookups_per_second_per_core", LookupsPerSecond(cases)}};
  std::cout << json.dump() << "\n";
}

absl::Status RunReplay(const ReplayCommand& command) {
  PREGATE_ASSIGN_OR_RETURN(const std::vector<uint32_t> streams, ParseStreams(command.streams));
  const std::vector<std::string> policies = absl::StrSplit(command.policies, ',');
  for (const std::string& policy : policies) PREGATE_RETURN_IF_ERROR(CheckPolicy(policy));
  PREGATE_ASSIGN_OR_RETURN(const RoutingTrace trace, ReadAnyRoutingTrace(command.trace));
  if (!command.convert.empty()) return WriteRoutingTrace(command.convert, trace);

  const SlotNeeds needs = {
      .num_layers = trace.num_layers, .num_experts = trace.num_experts, .slot_bytes = 1};
  std::vector<std::unique_ptr<TraceLookups>> lookups;
  std::vector<Case> cases;
  for (const uint32_t num_streams : streams) {
    lookups.push_back(std::make_unique<TraceLookups>(trace, num_streams));
    for (const absl::string_view capacity : absl::StrSplit(command.capacities, ',')) {
      PREGATE_ASSIGN_OR_RETURN(const uint32_t num_slots, ParseSlotCount(capacity, needs));
      for (const std::string& policy : policies) {
        Case& one = cases.emplace_back();
        one.policy = policy;
        one.capacity = std::string(capacity);
        one.num_slots = num_slots;
        one.num_streams = num_streams;
        one.lookups = lookups.back().get();
      }
    }
  }
  PREGATE_RETURN_IF_ERROR(
      RunCases(command.threads > 0 ? command.threads : std::thread::hardware_concurrency(), cases));
  if (command.json) {
    PrintJson(trace, cases);
  } else {
    PrintTable(cases);
  }
  return absl::OkStatus();
}

}  // namespace

Subcommand AddReplay(CLI::App& program) {
  const auto command = std::make_shared<ReplayCommand>();
  CLI::App* const app =
      program.add_subcommand("replay", "A routing trace through eviction policies");
  AddFlags(
      *app,
      {TextFlag("trace",
                "FILE",
                "recorded routing, in our format or JSON, plain or .gz (required)",
                command->trace),
       TextFlag("capacity",
                "25%,96",
                "slots: shares of all experts or numbers (default 25%,50%)",
                command->capacities),
       TextFlag("streams", "N,N", "sequences side by side (default 1)", command->streams),
       TextFlag("policy",
                "NAME,NAME",
                "ewma, lfru, lru, lfu, fifo, belady (default ewma,lru,belady)",
                command->policies),
       CountFlag("threads", "replays at a time (default 0: one a core)", 0, 1024, command->threads),
       TextFlag("convert", "FILE", "write the trace in our format, and end", command->convert),
       SwitchFlag("json", "print one JSON object", command->json)});
  app->get_option("--trace")->required();
  return {.app = app, .run = [command](const Logger&) { return RunReplay(*command); }};
}

}  // namespace pregate
