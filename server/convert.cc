#include "server/convert.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "server/status.h"

namespace pregate {
namespace {

constexpr size_t kMaxStopStrings = 8;
constexpr size_t kMaxStopBytes = 256;
constexpr size_t kMaxRequestIdBytes = 128;
constexpr size_t kMaxStopTokenIds = 64;
// No tokenizer in use needs more bytes for a token than this on average: longer texts cannot fit
// into the context, and tokenizing them would only cost time.
constexpr size_t kMaxBytesPerToken = 64;

class Violations {
 public:
  template <typename... Parts>
  void Add(std::string field, const Parts&... parts) {
    list_.push_back({std::move(field), absl::StrCat(parts...)});
  }
  absl::Status status() const { return list_.empty() ? absl::OkStatus() : InvalidFields(list_); }

 private:
  std::vector<FieldViolation> list_;
};

// What the message can say and this server cannot do.
void CheckUnimplemented(const v1::GenerateRequest& wire, Violations& violations) {
  const auto refuse = [&](bool is_set, const char* field) {
    if (is_set) violations.Add(field, "is not supported by this version");
  };
  refuse(wire.has_n() && wire.n() != 1, "n");
  refuse(wire.send_accepted(), "send_accepted");
  const v1::Sampling& sampling = wire.sampling();
  refuse(sampling.has_min_p(), "sampling.min_p");
  refuse(sampling.has_repetition_penalty(), "sampling.repetition_penalty");
  refuse(sampling.has_presence_penalty(), "sampling.presence_penalty");
  refuse(sampling.has_frequency_penalty(), "sampling.frequency_penalty");
  refuse(!sampling.logit_bias().empty(), "sampling.logit_bias");
  refuse(wire.stopping().has_min_tokens(), "stopping.min_tokens");
}

Sampling ConvertSampling(const v1::Sampling& wire,
                         uint64_t random_seed,
                         const ModelDescription& model,
                         Violations& violations) {
  Sampling sampling = model.default_sampling;
  if (wire.has_temperature()) sampling.temperature = wire.temperature();
  if (wire.has_top_k()) sampling.top_k = wire.top_k();
  if (wire.has_top_p()) sampling.top_p = wire.top_p();
  sampling.seed = wire.has_seed() ? wire.seed() : random_seed;
  if (wire.has_logprobs()) sampling.logprobs = wire.logprobs();
  if (!std::isfinite(sampling.temperature) || sampling.temperature < 0) {
    violations.Add("sampling.temperature", sampling.temperature, " is not a number of at least 0");
  }
  if (!(sampling.top_p > 0 && sampling.top_p <= 1))
    violations.Add("sampling.top_p", sampling.top_p, " is not in (0, 1]");
  if (sampling.logprobs.value_or(0) > kMaxLogprobs) {
    violations.Add("sampling.logprobs", *sampling.logprobs, " is more than ", kMaxLogprobs);
  }
  return sampling;
}

// All but max_tokens, which depends on the prompt.
Stopping ConvertStopping(const v1::Stopping& wire,
                         const ModelDescription& model,
                         Violations& violations) {
  if (wire.has_max_tokens() && wire.max_tokens() == 0)
    violations.Add("stopping.max_tokens", "0 is less than 1");
  if (static_cast<size_t>(wire.stop_size()) > kMaxStopStrings) {
    violations.Add("stopping.stop", wire.stop_size(), " strings are more than ", kMaxStopStrings);
  }
  for (int i = 0; i < wire.stop_size(); ++i) {
    const size_t bytes = wire.stop(i).size();
    if (bytes == 0) violations.Add(absl::StrCat("stopping.stop[", i, "]"), "is empty");
    if (bytes > kMaxStopBytes) {
      violations.Add(
          absl::StrCat("stopping.stop[", i, "]"), bytes, " bytes are more than ", kMaxStopBytes);
    }
  }
  if (static_cast<size_t>(wire.stop_token_ids_size()) > kMaxStopTokenIds) {
    violations.Add("stopping.stop_token_ids",
                   wire.stop_token_ids_size(),
                   " ids are more than ",
                   kMaxStopTokenIds);
  }
  Stopping stopping;
  for (int i = 0; i < wire.stop_token_ids_size(); ++i) {
    if (wire.stop_token_ids(i) >= model.vocab_size) {
      violations.Add(absl::StrCat("stopping.stop_token_ids[", i, "]"),
                     wire.stop_token_ids(i),
                     " is not below the vocabulary's size ",
                     model.vocab_size);
    }
    stopping.stop_token_ids.push_back(wire.stop_token_ids(i));
  }
  if (!wire.ignore_eos()) {
    stopping.stop_token_ids.insert(
        stopping.stop_token_ids.end(), model.eos_token_ids.begin(), model.eos_token_ids.end());
  }
  return stopping;
}

absl::StatusOr<std::vector<uint32_t>> Tokenize(const std::string& field,
                                               const std::string& text,
                                               bool add_special_tokens,
                                               const Engine& engine) {
  PREGATE_RETURN_IF_ERROR(CheckTextSize(field, text, engine.model()));
  return engine.tokenizer().Encode(text, add_special_tokens);
}

absl::StatusOr<std::vector<uint32_t>> TokenizeChat(const v1::Chat& chat, const Engine& engine) {
  if (engine.chat_template() == nullptr) {
    return WithReason(absl::FailedPreconditionError(
                          absl::StrCat("messages: the model ",
                                       engine.model().name,
                                       " has no chat template: send prompt or token_ids")),
                      "NO_CHAT_TEMPLATE");
  }
  if (chat.messages().empty()) return InvalidFields({{"messages.messages", "is empty"}});
  std::vector<ChatMessage> messages;
  for (const v1::Message& message : chat.messages()) {
    PREGATE_RETURN_IF_ERROR(CheckTextSize("messages.messages", message.content(), engine.model()));
    messages.push_back({.role = message.role(), .content = message.content()});
  }
  const absl::StatusOr<std::string> text =
      engine.chat_template()->Render(messages, chat.tools_json(), /*add_generation_prompt=*/true);
  // The template refuses the conversation, or it takes the template beyond its bounds.
  if (absl::IsInvalidArgument(text.status()) || absl::IsResourceExhausted(text.status()))
    return InvalidFields({{"messages", std::string(text.status().message())}});
  PREGATE_RETURN_IF_ERROR(text.status());
  // The template writes the special tokens itself.
  return Tokenize("messages", *text, /*add_special_tokens=*/false, engine);
}

absl::StatusOr<std::vector<uint32_t>> TokenizeInput(const v1::GenerateRequest& wire,
                                                    const Engine& engine) {
  switch (wire.input_case()) {
    case v1::GenerateRequest::kPrompt:
      return Tokenize("prompt", wire.prompt(), /*add_special_tokens=*/true, engine);
    case v1::GenerateRequest::kTokenIds:
      return std::vector<uint32_t>(wire.token_ids().ids().begin(), wire.token_ids().ids().end());
    case v1::GenerateRequest::kMessages:
      return TokenizeChat(wire.messages(), engine);
    case v1::GenerateRequest::INPUT_NOT_SET:
      break;
  }
  return InvalidFields({{"prompt", "is missing: send prompt, token_ids or messages"}});
}

std::string InputField(const v1::GenerateRequest& wire) {
  switch (wire.input_case()) {
    case v1::GenerateRequest::kTokenIds:
      return "token_ids.ids";
    case v1::GenerateRequest::kMessages:
      return "messages";
    default:
      return "prompt";
  }
}

// Whether prompt and answer fit; sets max_tokens.
void CheckLength(const v1::GenerateRequest& wire,
                 const ModelDescription& model,
                 Request& request,
                 Violations& violations) {
  const size_t prompt = request.prompt_token_ids.size();
  if (prompt == 0)
    return violations.Add(InputField(wire), "is empty: at least one token is needed");
  if (prompt >= model.max_context) {
    return violations.Add(InputField(wire),
                          prompt,
                          " tokens leave no room for an answer in a context of ",
                          model.max_context);
  }
  const uint32_t room = model.max_context - static_cast<uint32_t>(prompt);
  request.stopping.max_tokens =
      wire.stopping().has_max_tokens() ? wire.stopping().max_tokens() : room;
  if (request.stopping.max_tokens > room) {
    violations.Add("stopping.max_tokens",
                   request.stopping.max_tokens,
                   " and ",
                   prompt,
                   " prompt tokens are more than the context of ",
                   model.max_context);
  }
}

}  // namespace

absl::StatusOr<Generation> ConvertRequest(const v1::GenerateRequest& wire,
                                          std::optional<TimePoint> deadline,
                                          uint64_t random_seed,
                                          const Engine& engine) {
  const ModelDescription& model = engine.model();
  PREGATE_RETURN_IF_ERROR(CheckModel(wire.model(), model));
  Violations violations;
  CheckUnimplemented(wire, violations);
  if (wire.request_id().size() > kMaxRequestIdBytes) {
    violations.Add(
        "request_id", wire.request_id().size(), " bytes are more than ", kMaxRequestIdBytes);
  }
  Generation generation;
  Request& request = generation.request;
  request.id = wire.request_id();
  request.priority = wire.priority();
  if (std::abs(int64_t{request.priority}) > kMaxPriority) {
    violations.Add(
        "priority", request.priority, " is not in [", -kMaxPriority, ", ", kMaxPriority, "]");
  }
  request.deadline = deadline;
  request.sampling = ConvertSampling(wire.sampling(), random_seed, model, violations);
  request.stopping = ConvertStopping(wire.stopping(), model, violations);
  generation.stop.assign(wire.stopping().stop().begin(), wire.stopping().stop().end());
  PREGATE_RETURN_IF_ERROR(violations.status());  // before the work of tokenizing

  PREGATE_ASSIGN_OR_RETURN(request.prompt_token_ids, TokenizeInput(wire, engine));
  for (const uint32_t token_id : request.prompt_token_ids) {
    if (token_id < model.vocab_size) continue;
    violations.Add(InputField(wire),
                   "token id ",
                   token_id,
                   " is not below the vocabulary's size ",
                   model.vocab_size);
    break;
  }
  CheckLength(wire, model, request, violations);
  PREGATE_RETURN_IF_ERROR(violations.status());
  return generation;
}

absl::Status CheckModel(const std::string& name, const ModelDescription& model) {
  if (name.empty() || name == model.name) return absl::OkStatus();
  return WithReason(
      absl::NotFoundError(absl::StrCat("no such model here: this server serves ", model.name)),
      "MODEL_NOT_FOUND");
}

absl::Status CheckTextSize(const std::string& field,
                           const std::string& text,
                           const ModelDescription& model) {
  const size_t limit = kMaxBytesPerToken * model.max_context;
  if (text.size() <= limit) return absl::OkStatus();
  return InvalidFields({{field,
                         absl::StrCat(text.size(),
                                      " bytes are more than ",
                                      limit,
                                      ", and cannot fit into a context of ",
                                      model.max_context,
                                      " tokens")}});
}

v1::Model ConvertModel(const Engine& engine) {
  const ModelDescription& model = engine.model();
  v1::Model wire;
  wire.set_name(model.name);
  wire.set_family(model.family);
  wire.set_dtype(model.dtype);
  wire.set_vocab_size(model.vocab_size);
  wire.set_max_context(model.max_context);
  wire.set_num_layers(model.num_layers);
  wire.set_num_experts(model.num_experts);
  wire.set_num_experts_per_token(model.num_experts_per_token);
  wire.set_num_parameters(model.num_parameters);
  wire.mutable_eos_token_ids()->Add(model.eos_token_ids.begin(), model.eos_token_ids.end());
  wire.set_has_chat_template(engine.chat_template() != nullptr);
  return wire;
}

std::string LoggableId(const std::string& request_id) {
  std::string id = request_id;
  std::replace_if(
      id.begin(), id.end(), [](unsigned char c) { return c <= 0x20 || c >= 0x7f; }, '?');
  return id;
}

}  // namespace pregate
