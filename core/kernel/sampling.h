// From logits to a token.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/kernel/cpu_kernels.h"

namespace pregate {

struct ExpWeightsArgs {
  const float* logits = nullptr;  // [count]
  float* weights = nullptr;       // [count]
  int64_t count = 0;
  float max = 0;  // of the logits
  float temperature = 1;
};
// weights = e^((logits - max) / temperature).
void ExpWeights(const CpuContext& cpu, const ExpWeightsArgs& args);

// A number in [0, 1), the same for the same seed and position everywhere: Philox4x32-10 (Salmon,
// Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
double UniformAt(uint64_t seed, uint64_t position);

// The id of the largest logit, of equals the lowest. INTERNAL names a logit that is not finite.
absl::StatusOr<uint32_t> MostLikely(absl::Span<const float> logits);

// Draws tokens and tells their probabilities. Tokens are ordered by logit, largest first, of equals
// the lower id first: that order decides which are the most likely. Used by one thread at a time.
class Sampler {
 public:
  // How to draw; the first three are applied in this order.
  struct Parameters {
    float temperature = 1;  // 0: the most likely token
    uint32_t top_k = 0;     // keep the k most likely; 0 = all
    float top_p = 1;        // keep the fewest whose probabilities sum to at least this
    uint64_t seed = 0;
    uint64_t position = 0;  // of the token to draw; with the seed it determines the random number
  };

  struct Logprobs {
    float chosen = 0;
    std::vector<std::pair<uint32_t, float>> top;  // id and logprob, most likely first
  };

  explicit Sampler(CpuContext cpu);

  // A token from softmax(logits / temperature). INTERNAL names a logit that is not finite.
  absl::StatusOr<uint32_t> Draw(absl::Span<const float> logits, const Parameters& parameters);

  // Natural logarithms of softmax(logits), which are finite: of `token_id` and of the `num_top`
  // most likely.
  Logprobs LogprobsOf(absl::Span<const float> logits, uint32_t token_id, uint32_t num_top);

 private:
  using Candidate = std::pair<float, uint32_t>;  // logit, id

  static bool GoesBefore(const Candidate& a, const Candidate& b);
  // Fills weights_ and returns their sum.
  double Weigh(absl::Span<const float> logits, float max, float temperature);
  // Fills candidates_ with all tokens and moves the `count` most likely to the front, in order.
  void SortMostLikely(absl::Span<const float> logits, size_t count);
  void SortById();
  // Of candidates_ in order of id, leaves the fewest, most likely ones that hold at least `share`
  // of the weights of all of them, in no particular order.
  void KeepShare(float share);
  // The candidate at `fraction` of the candidates' weights; they are in order of id.
  uint32_t Pick(double fraction);

  const CpuContext cpu_;
  std::vector<float> weights_;  // [vocab_size]
  std::vector<Candidate> candidates_;
};

}  // namespace pregate
