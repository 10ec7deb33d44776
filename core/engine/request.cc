#include "core/engine/request.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"

namespace pregate {
namespace {

absl::Status ValidateTokenIds(absl::string_view field,
                              const std::vector<uint32_t>& ids,
                              uint32_t vocab_size) {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= vocab_size) {
      return absl::InvalidArgumentError(absl::StrCat(
          field, "[", i, "] is ", ids[i], ": the vocabulary has ", vocab_size, " tokens"));
    }
  }
  return absl::OkStatus();
}

absl::Status ValidateSampling(const Sampling& sampling) {
  if (!std::isfinite(sampling.temperature) || sampling.temperature < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("temperature is ", sampling.temperature, ": it is finite and at least 0"));
  }
  if (!(sampling.top_p > 0 && sampling.top_p <= 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("top_p is ", sampling.top_p, ": it is above 0 and at most 1"));
  }
  if (sampling.logprobs.value_or(0) > kMaxLogprobs) {
    return absl::InvalidArgumentError(
        absl::StrCat("logprobs is ", *sampling.logprobs, ": it is at most ", kMaxLogprobs));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ValidateRequest(const Request& request, uint32_t vocab_size, uint32_t max_context) {
  const uint64_t prompt_tokens = request.prompt_token_ids.size();
  const uint64_t max_tokens = request.stopping.max_tokens;
  if (prompt_tokens == 0) {
    return absl::InvalidArgumentError("the prompt is empty: it has at least one token");
  }
  if (max_tokens == 0) {
    return absl::InvalidArgumentError("max_tokens is 0: it is at least 1");
  }
  if (prompt_tokens + max_tokens > max_context) {
    return absl::InvalidArgumentError(absl::StrCat("a prompt of ",
                                                   prompt_tokens,
                                                   " tokens and max_tokens of ",
                                                   max_tokens,
                                                   " exceed the context of ",
                                                   max_context,
                                                   " tokens"));
  }
  if (request.priority < -kMaxPriority || request.priority > kMaxPriority) {
    return absl::InvalidArgumentError(absl::StrCat("priority is ",
                                                   request.priority,
                                                   ": it is at least ",
                                                   -kMaxPriority,
                                                   " and at most ",
                                                   kMaxPriority));
  }
  PREGATE_RETURN_IF_ERROR(
      ValidateTokenIds("prompt_token_ids", request.prompt_token_ids, vocab_size));
  PREGATE_RETURN_IF_ERROR(
      ValidateTokenIds("stop_token_ids", request.stopping.stop_token_ids, vocab_size));
  return ValidateSampling(request.sampling);
}

}  // namespace pregate
