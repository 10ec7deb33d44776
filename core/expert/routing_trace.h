// Which experts real text went to: recorded by a server or a bench, replayed through caches and
// predictors. docs/routing-trace.md has the format.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace pregate {

struct RoutingTrace {
  struct Sequence {
    std::string id;
    uint32_t num_prompt_tokens = 0;    // the first of its tokens that were prompt; 0 = decode only
    std::vector<uint16_t> expert_ids;  // [num_tokens, num_layers, experts_per_token], best first
  };
  std::string model;
  uint32_t num_layers = 0;
  uint32_t num_experts = 0;
  uint32_t experts_per_token = 0;
  std::vector<Sequence> sequences;

  uint32_t num_tokens(const Sequence& sequence) const;
  // Of one token at one layer.
  absl::Span<const uint16_t> ExpertsOf(const Sequence& sequence,
                                       uint32_t token,
                                       uint32_t layer) const;
  // Where a token goes when the trace is forced upon a run, at position `position` of the run's
  // sequence `sequence`: both modulo what there is. Needs sequences that all have tokens.
  absl::Span<const uint16_t> ForcedExperts(uint64_t sequence,
                                           uint32_t position,
                                           uint32_t layer) const;
};

// The compact format; the whole file in memory. INVALID_ARGUMENT names the offset and the field.
absl::StatusOr<RoutingTrace> ParseRoutingTrace(absl::string_view bytes);
std::string SerializeRoutingTrace(const RoutingTrace& trace);
// Of at most 4 GiB; NOT_FOUND: there is no such file.
absl::StatusOr<RoutingTrace> ReadRoutingTrace(const std::string& path);
// Whole or not at all.
absl::Status WriteRoutingTrace(const std::string& path, const RoutingTrace& trace);

// Collects a trace while a model runs, in at most about `max_bytes` of memory: the oldest sequences
// go first. Thread-safe.
class RoutingRecorder {
 public:
  RoutingRecorder(std::string model,
                  uint32_t num_layers,
                  uint32_t num_experts,
                  uint32_t experts_per_token,
                  uint64_t max_bytes);
  ~RoutingRecorder();

  // The next token of a sequence: its experts [num_layers, experts_per_token], best first.
  void Record(uint64_t sequence, bool is_prompt, absl::Span<const uint32_t> expert_ids);
  RoutingTrace Read() const;
  void Clear();

 private:
  class Sequences;
  std::unique_ptr<Sequences> sequences_;
};

}  // namespace pregate
