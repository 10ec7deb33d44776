// A conversation to a prompt, as a model's chat template says.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

struct PregateChatTemplate;

namespace pregate {

struct ChatMessage {
  std::string role;  // "system", "user", "assistant", "tool" or what else the template knows
  std::string content;
};

// The Jinja template of a model folder, rendered as Hugging Face's `apply_chat_template` does:
// trim_blocks, lstrip_blocks, loop controls, `raise_exception`, `strftime_now`, `tojson` and
// printed values as Python writes them, Python's string and dict methods. Immutable: thread-safe.
//
// A template has at most 64 KiB. A rendering is bounded in steps (2 million) and output (64 MiB),
// and takes place on a thread of its own, whose stack no template can overflow. Its working memory
// is not bounded: a template can double a string until there is none left; what to do
// about that is in docs/security.md.
class ChatTemplate {
 public:
  using WallClock = std::function<absl::Time()>;

  // Reads chat_template.jinja, else `chat_template` in tokenizer_config.json (one template, or a
  // list of named ones), of `model_folder`, and the special tokens of the latter. `now`: what
  // `strftime_now` formats, in local time; any thread may call it.
  // NOT_FOUND: the folder has no template. INVALID_ARGUMENT: says in which template, line and
  // column the syntax is wrong, or which entry of the config. RESOURCE_EXHAUSTED: a file has more
  // than 16 MiB.
  static absl::StatusOr<std::unique_ptr<ChatTemplate>> Load(const std::string& model_folder,
                                                            WallClock now = absl::Now);
  ~ChatTemplate();
  ChatTemplate(const ChatTemplate&) = delete;
  ChatTemplate& operator=(const ChatTemplate&) = delete;

  // `tools_json`: a JSON array of tool descriptions, or "" for none; with tools the template named
  // `tool_use` is taken if there is one, else `default`. `add_generation_prompt`: end with what
  // begins an answer.
  // INVALID_ARGUMENT: the template itself refuses the conversation (the text it gives to
  // `raise_exception`), a string is not UTF-8, or `tools_json` is not a JSON array.
  // FAILED_PRECONDITION: the template fails, with line and column. RESOURCE_EXHAUSTED: it exceeds a
  // bound.
  absl::StatusOr<std::string> Render(absl::Span<const ChatMessage> messages,
                                     absl::string_view tools_json,
                                     bool add_generation_prompt) const;

 private:
  explicit ChatTemplate(WallClock now) : now_(std::move(now)) {}

  WallClock now_;
  PregateChatTemplate* handle_ = nullptr;
};

}  // namespace pregate
