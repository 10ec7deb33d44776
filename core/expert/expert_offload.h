// A model's experts from disk to device, and the guesses that hurry them there: what a runner calls
// layer by layer, and what an operator sees and changes meanwhile. Puts together the host tier, the
// cache, the predictors and the recorder, and is all of core/expert that others need.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/base/options.h"
#include "core/base/stats.h"
#include "core/device/backend.h"
#include "core/expert/expert_cache.h"
#include "core/expert/expert_predictor.h"
#include "core/expert/profile.h"
#include "core/expert/routing_trace.h"
#include "core/expert/slot_plan.h"
#include "core/storage/expert_pack.h"

namespace pregate {

// What all experts of a model have in common.
struct ExpertModel {
  std::string name;  // of the served model
  uint32_t num_layers = 0;
  uint32_t num_experts = 0;
  uint32_t experts_per_token = 0;
  bool is_pregated = false;
};

// The first group of methods is for one thread (the engine's), the second for any. A thread of its
// own looks at the device's memory from time to time: where others take it, slots are given up, and
// come back when it is free again (core/expert/slot_budget.h); the strategy "auto" is decided anew.
class ExpertOffload {
 public:
  struct Options {
    ExpertOptions flags;  // of which capacity and memory_strategy have become `slots`
    ExpertModel model;
    SlotPlan slots;
    SlotNeeds slot_needs;  // that `slots` were, and later changes are, planned from
    Duration memory_period = std::chrono::seconds(1);  // of looks; 0: CheckMemory alone looks
    uint64_t host_tier_bytes = UINT64_MAX;             // for the records of all encodings together
  };

  // `packs`: one, or for the codec "adaptive" the exact and the smaller encoding. Reads
  // `flags.speculation_state` when it is there. The references outlive this.
  static absl::StatusOr<std::unique_ptr<ExpertOffload>> Create(Options options,
                                                               std::vector<ExpertPack> packs,
                                                               std::unique_ptr<Backend> backend,
                                                               const Clock& clock,
                                                               const Logger& logger);
  // Writes `flags.speculation_state` and `flags.record_routing`.
  ~ExpertOffload();

  // --- the runner's side ---

  // Around the layers of a step. `reduced_precision_tokens`: of its tokens, those that went through
  // an expert in an encoding other than the first. Between steps the codec "adaptive" chooses the
  // encoding of later loads by what the last ones waited. A step that fails has no end.
  void BeginStep();
  void EndStep(uint64_t reduced_precision_tokens);

  // The router has chosen for a layer: predicts, and hints what can still come in time. Layers in
  // ascending order, each step from the first.
  void OnRouted(const RoutedLayer& routed);

  // The distinct experts that the step needs of `layer`, on the calling thread's stream.
  absl::StatusOr<ExpertLease> Acquire(absl::Span<const ExpertId> ids, Stream& consumer);

  // Compares a share of the experts leased for `consumer`, --verify-slots, with what the host has
  // of them, and waits for that. INTERNAL names the one whose bytes are others.
  absl::Status Verify(const ExpertId& id, const ExpertLease::Expert& expert, Stream& consumer);

  // A token's experts in all layers [num_layers, experts_per_token], for the recorder.
  void RecordRouting(uint64_t sequence, bool is_prompt, absl::Span<const uint32_t> expert_ids);

  // --- the operator's side ---

  struct Speculation {
    std::string mode;
    uint32_t lookahead = 1;
    double aggressiveness = 0;
    double confidence = 0;
    uint64_t predicted = 0;  // (step, layer, expert) predictions acted on
    uint64_t correct = 0;    // of them, needed
  };
  struct State {
    ExpertModel model;
    std::string codec;
    std::string load_codec;       // of what is loaded now: another than `codec` where that is
                                  // "adaptive"
    std::string memory_strategy;  // what is in force, never "auto"
    std::string eviction;
    bool is_unified = false;
    ExpertCache::Snapshot cache;
    double layers_seconds = 0;  // of the steps so far, from BeginStep to EndStep
    Speculation speculation;
  };
  State Read() const;

  // "25%", "96" or "6GiB". Changes the memory strategy from cpu_offload, which has no slots, to
  // single_async. INVALID_ARGUMENT, RESOURCE_EXHAUSTED.
  absl::Status SetCapacity(absl::string_view capacity);
  // Forgets what is resident and not in use.
  void Reset();
  // An unset mode stays as it is. INVALID_ARGUMENT, or FAILED_PRECONDITION: the model lacks
  // what the mode needs.
  struct SpeculationChange {
    std::optional<std::string> mode;
    std::optional<uint32_t> lookahead;
    std::optional<double> aggressiveness;
    std::optional<double> confidence;
  };
  absl::Status SetSpeculation(const SpeculationChange& change);
  absl::Status SetMemoryStrategy(absl::string_view strategy);
  absl::Status SetEviction(absl::string_view name);
  // Looks at the device's memory now.
  void CheckMemory();
  // Controls of a bench, until the next SetSpeculation or SetEviction.
  void UsePredictor(std::unique_ptr<ExpertPredictor> predictor);
  void UseEviction(std::unique_ptr<EvictionPolicy> policy);

  // What has been routed lately, in the format of docs/routing-trace.md.
  RoutingTrace ReadRoutingTrace() const;

  // pregate::MeasureDevice with the device and the pack that this uses; of two packs the exact one.
  absl::StatusOr<DeviceProfile> MeasureDevice(ProfiledModel& model, const OnProfileStep& on_step);

  void VisitStats(StatsVisitor& visitor) const;

 private:
  class Parts;
  explicit ExpertOffload(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

}  // namespace pregate
