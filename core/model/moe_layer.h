// One block's experts: tokens grouped by expert, each expert computed once over its rows, as it
// comes from its tier.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "core/base/clock.h"
#include "core/expert/expert_offload.h"
#include "core/kernel/codec.h"
#include "core/model/compute.h"
#include "core/model/model_config.h"

namespace pregate {

// Where a model's experts are and how their records are to be read.
struct ExpertRecords {
  ExpertOffload* offload = nullptr;   // never null once a model is there
  std::vector<RecordLayout> layouts;  // of each encoding of the offload's cache
};

// What every layer's experts need and none owns. Used by one thread at a time.
class MoeLayer {
 public:
  // `max_tokens` in a step. The references and `records.offload` outlive this.
  MoeLayer(const ModelConfig& config,
           ModelCompute& compute,
           ExpertRecords records,
           uint32_t max_tokens);

  // Computes the experts of the tokens of `routed`, where `compute` has attended. Experts are
  // computed as they arrive. One that could not be had is among the failures; an error is of all.
  absl::Status Run(const RoutedLayer& routed);

  struct Failure {
    uint32_t expert = 0;
    absl::Status status;  // names it and says why
  };
  // Of the last Run.
  absl::Span<const Failure> failures() const { return failures_; }
  // Of the last Run: how each expert was found [num_experts], for those that tokens went to, and
  // how long the pass waited for them.
  absl::Span<const Lookup> lookups() const { return lookups_; }
  Duration stall() const { return stall_; }
  // Of the last Run: the encoding that each expert was computed from [num_experts], for those that
  // tokens went to.
  absl::Span<const uint32_t> encodings() const { return encodings_; }
  // Spent computing experts, of all runs: their products and activations. On a GPU: launching them.
  Duration compute_time() const { return compute_time_; }
  // Of a record in an encoding.
  uint64_t RecordBytes(uint32_t encoding) const { return records_.layouts[encoding].bytes; }

  uint64_t workspace_bytes() const;

 private:
  // Fills first_row_, places_ and rows_.
  void GroupByExpert(absl::Span<const uint32_t> expert_ids);
  // Those of `group` that can be computed to ready_, the others to failures_.
  void Sort(absl::Span<const ExpertLease::Expert> group);

  const ModelConfig& config_;
  ModelCompute& compute_;
  const ExpertRecords records_;

  std::vector<uint32_t> first_row_;  // [num_experts + 1]
  std::vector<uint32_t> places_;     // [num rows]
  std::vector<uint32_t> rows_;       // [num rows]
  std::vector<ExpertId> ids_;        // that the step's tokens go to
  std::vector<Lookup> lookups_;      // [num_experts]
  std::vector<uint32_t> encodings_;  // [num_experts]
  std::vector<ReadyExpert> ready_;
  std::vector<Failure> failures_;
  std::vector<uint32_t> missing_;  // the experts of failures_
  Duration stall_ = {};
  Duration compute_time_ = {};
  RealClock clock_;
};

}  // namespace pregate
