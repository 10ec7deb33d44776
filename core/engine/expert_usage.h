// What a sequence's tokens needed of the experts, and how it was found.
#pragma once

#include <cstdint>

namespace pregate {

// Unit of the first three: one (step, layer, expert) look-up, counted once however many of the
// sequence's tokens go to the expert in that step.
struct ExpertUsage {
  uint64_t hits = 0;
  uint64_t late_hits = 0;
  uint64_t misses = 0;
  uint64_t loaded_bytes = 0;  // of the misses
  double stall_seconds = 0;   // that steps with the sequence waited for experts
  // Tokens, of prompt and answer, that went through an expert in the smaller encoding of the codec
  // "adaptive".
  uint64_t reduced_precision_tokens = 0;

  ExpertUsage& operator+=(const ExpertUsage& other) {
    hits += other.hits;
    late_hits += other.late_hits;
    misses += other.misses;
    loaded_bytes += other.loaded_bytes;
    stall_seconds += other.stall_seconds;
    reduced_precision_tokens += other.reduced_precision_tokens;
    return *this;
  }
  friend bool operator==(const ExpertUsage&, const ExpertUsage&) = default;
};

}  // namespace pregate
