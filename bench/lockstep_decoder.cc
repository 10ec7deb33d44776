#include "bench/lockstep_decoder.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"

namespace pregate {

LockstepDecoder::LockstepDecoder(TorchRunner& runner,
                                 std::vector<std::vector<uint32_t>> prompts,
                                 std::vector<std::vector<uint32_t>> continuations,
                                 std::vector<std::vector<uint32_t>> blocks,
                                 uint64_t id_stride)
    : runner_(&runner),
      prompts_(std::move(prompts)),
      continuations_(std::move(continuations)),
      blocks_(std::move(blocks)),
      answers_(prompts_.size()),
      rows_(prompts_.size()),
      id_stride_(std::max<uint64_t>(id_stride, prompts_.size())) {
  std::iota(rows_.begin(), rows_.end(), 0);
}

absl::StatusOr<LockstepDecoder> LockstepDecoder::Create(
    TorchRunner& runner,
    std::vector<std::vector<uint32_t>> prompts,
    uint32_t max_steps,
    std::vector<std::vector<uint32_t>> continuations,
    uint64_t id_stride) {
  const ModelRunner::Limits& limits = runner.limits();
  std::vector<std::vector<uint32_t>> blocks(prompts.size());
  uint32_t next_block = 0;
  for (size_t i = 0; i < prompts.size(); ++i) {
    const size_t num_tokens = prompts[i].size() + max_steps;
    if (prompts[i].empty() || num_tokens > limits.max_context ||
        prompts[i].size() > runner.max_batch_tokens()) {
      return absl::InvalidArgumentError(absl::StrCat("a prompt of ",
                                                     prompts[i].size(),
                                                     " tokens and an answer of ",
                                                     max_steps,
                                                     " do not fit: the context has ",
                                                     limits.max_context,
                                                     " tokens, a step ",
                                                     runner.max_batch_tokens()));
    }
    blocks[i].resize((num_tokens + limits.kv_block_size - 1) / limits.kv_block_size);
    std::iota(blocks[i].begin(), blocks[i].end(), next_block);
    next_block += static_cast<uint32_t>(blocks[i].size());
  }
  if (next_block > limits.num_kv_blocks) {
    return absl::InvalidArgumentError(absl::StrCat(prompts.size(),
                                                   " sequences take ",
                                                   next_block,
                                                   " KV blocks, and there are ",
                                                   limits.num_kv_blocks));
  }
  return LockstepDecoder(
      runner, std::move(prompts), std::move(continuations), std::move(blocks), id_stride);
}

void LockstepDecoder::Append(absl::Span<const float> logits, size_t row, size_t sequence) {
  const size_t vocab_size = runner_->limits().vocab_size;
  const auto values = logits.subspan(row * vocab_size, vocab_size);
  const std::string_view bytes(reinterpret_cast<const char*>(values.data()),
                               values.size() * sizeof(float));
  logits_digest_ = logits_digest_ * 31 + std::hash<std::string_view>()(bytes);
  std::vector<uint32_t>& answer = answers_[sequence];
  answer.push_back(
      continuations_.empty()
          ? static_cast<uint32_t>(std::max_element(values.begin(), values.end()) - values.begin())
          : continuations_[sequence][answer.size()]);
}

absl::Status LockstepDecoder::Prefill(std::vector<Routing>* routings) {
  first_id_ += id_stride_;
  logits_digest_ = 0;
  for (size_t i = 0; i < prompts_.size(); ++i) {
    answers_[i].clear();
    const TokenRun run = {.token_ids = prompts_[i],
                          .first_position = 0,
                          .blocks = blocks_[i],
                          .sequence = first_id_ + i,
                          .is_prompt = true};
    Routing* const routing = routings == nullptr ? nullptr : &routings->emplace_back();
    const auto last = static_cast<uint32_t>(prompts_[i].size() - 1);
    PREGATE_ASSIGN_OR_RETURN(
        const absl::Span<const float> logits,
        runner_->Forward({.runs = {&run, 1}, .logit_tokens = {&last, 1}}, routing));
    Append(logits, 0, i);
  }
  return absl::OkStatus();
}

absl::Status LockstepDecoder::Step(Routing* routing) {
  std::vector<TokenRun> runs;
  for (size_t i = 0; i < prompts_.size(); ++i) {
    const size_t position = prompts_[i].size() + answers_[i].size() - 1;
    runs.push_back({.token_ids = {&answers_[i].back(), 1},
                    .first_position = static_cast<uint32_t>(position),
                    .blocks = blocks_[i],
                    .sequence = first_id_ + i});
  }
  PREGATE_ASSIGN_OR_RETURN(const absl::Span<const float> logits,
                           runner_->Forward({.runs = runs, .logit_tokens = rows_}, routing));
  for (size_t i = 0; i < prompts_.size(); ++i) Append(logits, i, i);
  return absl::OkStatus();
}

}  // namespace pregate
