#include "core/kernel/sampling.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/kernel/grain.h"
#include "core/kernel/philox.h"

namespace pregate {

absl::StatusOr<uint32_t> MostLikely(absl::Span<const float> logits) {
  uint32_t best = 0;
  for (uint32_t id = 0; id < logits.size(); ++id) {
    if (!std::isfinite(logits[id])) {
      return absl::InternalError(
          absl::StrCat("the logit of token ", id, " is ", logits[id], ", not a finite number"));
    }
    if (logits[id] > logits[best]) best = id;
  }
  return best;
}

void ExpWeights(const CpuContext& cpu, const ExpWeightsArgs& args) {
  // Cut at whole lanes, so that only the end of `count` is a part of them.
  constexpr int64_t kPiece = 64;
  cpu.parallel_for(
      (args.count + kPiece - 1) / kPiece, GrainFor(kPiece * 4), [&](int64_t begin, int64_t end) {
        cpu.kernels->exp_weights(args, begin * kPiece, std::min(end * kPiece, args.count));
      });
}

double UniformAt(uint64_t seed, uint64_t position) {
  const PhiloxBlock counter = {
      {static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32), 0, 0}};
  const PhiloxBlock block =
      Philox(counter, {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  const uint64_t bits = (uint64_t{block[0]} << 32) | block[1];
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

Sampler::Sampler(CpuContext cpu) : cpu_(std::move(cpu)) {}

bool Sampler::GoesBefore(const Candidate& a, const Candidate& b) {
  return a.first != b.first ? a.first > b.first : a.second < b.second;
}

double Sampler::Weigh(absl::Span<const float> logits, float max, float temperature) {
  weights_.resize(logits.size());
  ExpWeights(cpu_,
             {.logits = logits.data(),
              .weights = weights_.data(),
              .count = static_cast<int64_t>(logits.size()),
              .max = max,
              .temperature = temperature});
  double sum = 0;
  for (const float weight : weights_) sum += weight;
  return sum;
}

void Sampler::SortMostLikely(absl::Span<const float> logits, size_t count) {
  candidates_.clear();
  for (uint32_t id = 0; id < logits.size(); ++id) candidates_.emplace_back(logits[id], id);
  std::partial_sort(candidates_.begin(),
                    candidates_.begin() + static_cast<std::ptrdiff_t>(count),
                    candidates_.end(),
                    GoesBefore);
}

void Sampler::SortById() {
  std::sort(candidates_.begin(), candidates_.end(), [](const Candidate& a, const Candidate& b) {
    return a.second < b.second;
  });
}

void Sampler::KeepShare(float share) {
  double total = 0;
  for (const Candidate& candidate : candidates_) total += weights_[candidate.second];

  // Taken from a heap, since few are kept as a rule. What was taken gathers at the end.
  const auto goes_after = [](const Candidate& a, const Candidate& b) { return GoesBefore(b, a); };
  std::make_heap(candidates_.begin(), candidates_.end(), goes_after);
  auto heap_end = candidates_.end();
  double sum = 0;
  while (heap_end != candidates_.begin() &&
         (heap_end == candidates_.end() || sum < total * static_cast<double>(share))) {
    sum += weights_[candidates_.front().second];
    std::pop_heap(candidates_.begin(), heap_end--, goes_after);
  }
  candidates_.erase(candidates_.begin(), heap_end);
}

uint32_t Sampler::Pick(double fraction) {
  double total = 0;
  for (const Candidate& candidate : candidates_) total += weights_[candidate.second];
  double sum = 0;
  uint32_t picked = candidates_.front().second;
  for (const Candidate& candidate : candidates_) {
    const float weight = weights_[candidate.second];
    if (weight > 0) picked = candidate.second;
    sum += weight;
    if (sum > fraction * total) break;
  }
  return picked;
}

absl::StatusOr<uint32_t> Sampler::Draw(absl::Span<const float> logits,
                                       const Parameters& parameters) {
  absl::StatusOr<uint32_t> most_likely = MostLikely(logits);
  if (!most_likely.ok() || parameters.temperature <= 0) return most_likely;

  Weigh(logits, logits[*most_likely], parameters.temperature);
  if (parameters.top_k > 0 && parameters.top_k < logits.size()) {
    SortMostLikely(logits, parameters.top_k);
    candidates_.resize(parameters.top_k);
    SortById();
  } else {
    SortMostLikely(logits, 0);
  }
  if (parameters.top_p < 1) {
    KeepShare(parameters.top_p);
    SortById();
  }
  return Pick(UniformAt(parameters.seed, parameters.position));
}

Sampler::Logprobs Sampler::LogprobsOf(absl::Span<const float> logits,
                                      uint32_t token_id,
                                      uint32_t num_top) {
  const float max = *std::max_element(logits.begin(), logits.end());
  const double log_sum = std::log(Weigh(logits, max, 1)) + static_cast<double>(max);
  const auto logprob = [&](float logit) {
    return static_cast<float>(static_cast<double>(logit) - log_sum);
  };
  Logprobs logprobs{.chosen = logprob(logits[token_id]), .top = {}};
  const size_t count = std::min(size_t{num_top}, logits.size());
  if (count == 0) return logprobs;
  SortMostLikely(logits, count);
  for (size_t i = 0; i < count; ++i) {
    logprobs.top.emplace_back(candidates_[i].second, logprob(candidates_[i].first));
  }
  return logprobs;
}

}  // namespace pregate
