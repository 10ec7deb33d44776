#include "tests/property/workload.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "rapidcheck.h"

namespace pregate {
namespace {

bool Same(const GeneratedToken& a, const GeneratedToken& b) {
  if (a.token_id != b.token_id || a.logprob.has_value() != b.logprob.has_value()) return false;
  if (!a.logprob.has_value()) return true;
  const auto same_candidate = [](const TokenLogprob::Candidate& x,
                                 const TokenLogprob::Candidate& y) {
    return x.token_id == y.token_id && x.logprob == y.logprob;
  };
  return a.logprob->logprob == b.logprob->logprob && std::equal(a.logprob->top.begin(),
                                                                a.logprob->top.end(),
                                                                b.logprob->top.begin(),
                                                                b.logprob->top.end(),
                                                                same_candidate);
}

}  // namespace

std::ostream& operator<<(std::ostream& os, const Request& request) {
  return os << "{prompt " << absl::StrJoin(request.prompt_token_ids, ",") << "; temperature "
            << request.sampling.temperature << "; seed " << request.sampling.seed << "; max_tokens "
            << request.stopping.max_tokens << "; stop at "
            << absl::StrJoin(request.stopping.stop_token_ids, ",") << "; priority "
            << request.priority << " of " << request.client << "}";
}

Request AnyRequest(const ModelRunner::Limits& limits) {
  const auto token_id = rc::gen::inRange<uint32_t>(0, limits.vocab_size);
  const uint32_t context =
      std::min(limits.max_context, limits.num_kv_blocks * limits.kv_block_size);
  Request request;
  const auto prompt_size = *rc::gen::inRange<uint32_t>(1, context);
  // Many begin alike.
  const auto num_common = *rc::gen::inRange<uint32_t>(0, prompt_size + 1);
  request.prompt_token_ids.assign(num_common, 1);
  for (uint32_t i = num_common; i < prompt_size; ++i) request.prompt_token_ids.push_back(*token_id);
  request.stopping.max_tokens = *rc::gen::inRange<uint32_t>(1, context - prompt_size + 1);
  request.stopping.stop_token_ids =
      *rc::gen::container<std::vector<uint32_t>>(*rc::gen::element<size_t>(0, 0, 1, 3), token_id);
  request.sampling.temperature = *rc::gen::element(0.f, 1.f);
  request.sampling.seed = *rc::gen::inRange<uint64_t>(0, 3);
  request.priority = *rc::gen::element(0, 0, 0, -1, 1);
  request.client = *rc::gen::element<std::string>("", "", "a", "b");
  if (*rc::gen::arbitrary<bool>()) request.sampling.logprobs = *rc::gen::inRange<uint32_t>(0, 3);
  return request;
}

std::string CheckAnswer(const Request& request,
                        const std::vector<GeneratedToken>& tokens,
                        const Completion& completion,
                        const FakeRunner& runner) {
  const std::vector<uint32_t>& stops = request.stopping.stop_token_ids;
  const std::vector<GeneratedToken> drawn =
      runner.Answer(request.prompt_token_ids, request.sampling, request.stopping.max_tokens);
  const auto stop = std::find_if(drawn.begin(), drawn.end(), [&](const GeneratedToken& token) {
    return std::find(stops.begin(), stops.end(), token.token_id) != stops.end();
  });
  const std::vector<GeneratedToken> answer(drawn.begin(), stop);

  if (tokens.size() > answer.size() ||
      !std::equal(tokens.begin(), tokens.end(), answer.begin(), Same)) {
    return absl::StrCat("the ", tokens.size(), " tokens do not begin its answer");
  }
  if (completion.prompt_tokens != request.prompt_token_ids.size() ||
      completion.completion_tokens != tokens.size()) {
    return absl::StrCat(completion.prompt_tokens,
                        " + ",
                        completion.completion_tokens,
                        " tokens were counted and ",
                        request.prompt_token_ids.size(),
                        " + ",
                        tokens.size(),
                        " delivered");
  }
  if (!completion.status.ok()) return "";
  const bool by_length = completion.reason == FinishReason::kLength;
  const bool by_token = completion.stop_token_id.has_value();
  if (!by_length && !by_token) return "";  // the reader stopped it
  if (tokens.size() < answer.size()) return "its answer was cut";
  if (by_length != (stop == drawn.end())) return "it ended for the wrong reason";
  if (by_token && *completion.stop_token_id != stop->token_id) return "it names another stop token";
  return "";
}

}  // namespace pregate
