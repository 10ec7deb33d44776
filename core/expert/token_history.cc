#include "core/expert/token_history.h"

#include <algorithm>

#include "core/base/check.h"

namespace pregate {

TokenHistory::TokenHistory(const PredictorShape& shape)
    : num_layers_(shape.num_layers),
      num_experts_(shape.num_experts),
      width_(shape.experts_per_token),
      sequences_(kSequences, UINT64_MAX),
      remembered_(size_t{kSequences} * shape.num_layers * shape.experts_per_token, kUnknown) {}

void TokenHistory::Observe(const RoutedLayer& routed) {
  PREGATE_CHECK(routed.layer < num_layers_ && routed.experts_per_token == width_);
  PREGATE_CHECK(routed.expert_ids.size() == size_t{routed.num_tokens} * width_);
  for (const uint32_t expert : routed.expert_ids) PREGATE_CHECK(expert < num_experts_);
  const bool goes_on = depth_ > 0 && routed.layer == layer_ + 1 && routed.num_tokens == num_tokens_;
  depth_ = goes_on ? std::min(depth_ + 1, kLayers) : 1;
  layer_ = routed.layer;
  num_tokens_ = routed.num_tokens;
  if (!goes_on) FindSequences(routed);

  layers_[layer_ % kLayers].assign(routed.expert_ids.begin(), routed.expert_ids.end());
  before_.assign(routed.expert_ids.size(), kUnknown);
  for (uint32_t token = 0; token < num_tokens_; ++token) {
    if (slots_[token] == kSequences) continue;
    // The first row of a sequence reads what the last row of the step before has left.
    if (token == 0 || slots_[token] != slots_[token - 1]) {
      std::copy_n(Remembered(slots_[token], layer_), width_, &before_[size_t{token} * width_]);
    }
    if (token + 1 == num_tokens_ || slots_[token] != slots_[token + 1]) {
      std::copy_n(Experts(0, token).data(), width_, Remembered(slots_[token], layer_));
    }
  }
}

void TokenHistory::FindSequences(const RoutedLayer& routed) {
  slots_.assign(num_tokens_, kSequences);
  if (routed.sequences.size() != num_tokens_) return;
  for (uint32_t token = 0; token < num_tokens_; ++token) {
    const uint64_t sequence = routed.sequences[token];
    const auto slot = static_cast<uint32_t>(sequence % kSequences);
    if (sequences_[slot] != sequence) {
      sequences_[slot] = sequence;
      std::fill_n(Remembered(slot, 0), size_t{num_layers_} * width_, kUnknown);
    }
    slots_[token] = slot;
  }
}

absl::Span<const uint16_t> TokenHistory::Experts(uint32_t back, uint32_t token) const {
  if (back >= depth_) return {};
  return {&layers_[(layer_ - back) % kLayers][size_t{token} * width_], width_};
}

absl::Span<const uint16_t> TokenHistory::TokenBefore(uint32_t ahead, uint32_t token) const {
  const uint16_t* experts = nullptr;
  if (ahead == 0) {
    experts = &before_[size_t{token} * width_];
  } else if (slots_[token] < kSequences && layer_ + ahead < num_layers_ &&
             (token == 0 || slots_[token] != slots_[token - 1])) {
    experts = &remembered_[(size_t{slots_[token]} * num_layers_ + layer_ + ahead) * width_];
  }
  if (experts == nullptr || experts[0] == kUnknown) return {};
  return {experts, width_};
}

}  // namespace pregate
