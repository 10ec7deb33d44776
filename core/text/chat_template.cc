#include "core/text/chat_template.h"

#include <ctime>
#include <optional>
#include <utility>
#include <vector>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/base/read_file.h"
#include "core/base/status_macros.h"
#include "core/text/boundary.h"

namespace pregate {
namespace {

using text_internal::At;
using text_internal::Borrow;
using text_internal::Into;
using text_internal::StatusOf;

// Of a file of the model folder: several times what the largest tokenizer_config.json in use have.
constexpr size_t kMaxBytes = size_t{16} << 20;

// A file of the model folder; empty when there is none.
absl::StatusOr<std::optional<std::string>> ReadIfThere(const std::string& path) {
  absl::StatusOr<std::string> bytes = ReadFile(path, kMaxBytes);
  if (absl::IsNotFound(bytes.status())) return std::nullopt;
  if (!bytes.ok()) return bytes.status();
  return *std::move(bytes);
}

// What Python's datetime adds to C's strftime: %f is microseconds, and a time without time zone
// leaves %z and %Z empty.
std::string PythonFormat(absl::string_view format, absl::Time time) {
  std::string result;
  for (size_t i = 0; i < format.size();) {
    const absl::string_view code = format.substr(i, format[i] == '%' ? 2 : 1);
    i += code.size();
    if (code == "%f") {
      const absl::Duration second = time - absl::FromUnixSeconds(absl::ToUnixSeconds(time));
      absl::StrAppendFormat(&result, "%06d", absl::ToInt64Microseconds(second));
    } else if (code != "%z" && code != "%Z") {
      absl::StrAppend(&result, code);
    }
  }
  return result;
}

// PregateClock's function over a ChatTemplate::WallClock. Gives nothing when the result is absurdly
// long.
void FormatNow(void* wall_clock, PregateBytes format, PregateSink time) {
  constexpr size_t kMaxSize = 4096;
  const absl::Time now = (*static_cast<const ChatTemplate::WallClock*>(wall_clock))();
  const std::tm local = absl::ToTM(now, absl::LocalTimeZone());
  const std::string wanted(static_cast<const char*>(format.data), format.size);
  char text[kMaxSize];
  const size_t size = std::strftime(text, kMaxSize, PythonFormat(wanted, now).c_str(), &local);
  time.put(time.target, text, size);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ChatTemplate>> ChatTemplate::Load(const std::string& model_folder,
                                                                 WallClock now) {
  PREGATE_ASSIGN_OR_RETURN(const std::optional<std::string> config,
                           ReadIfThere(model_folder + "/tokenizer_config.json"));
  PREGATE_ASSIGN_OR_RETURN(const std::optional<std::string> jinja,
                           ReadIfThere(model_folder + "/chat_template.jinja"));
  const PregateBytes config_bytes = Borrow(config ? absl::string_view(*config) : "");
  const PregateBytes jinja_bytes = Borrow(jinja ? absl::string_view(*jinja) : "");
  auto chat_template = absl::WrapUnique(new ChatTemplate(std::move(now)));
  const absl::Status status = StatusOf([&](PregateSink error) {
    return pregate_chat_template_new(config ? &config_bytes : nullptr,
                                     jinja ? &jinja_bytes : nullptr,
                                     {.target = &chat_template->now_, .format_now = FormatNow},
                                     &chat_template->handle_,
                                     error);
  });
  if (!status.ok()) return At(model_folder, status);
  return chat_template;
}

ChatTemplate::~ChatTemplate() {
  if (handle_ != nullptr) pregate_chat_template_free(handle_);
}

absl::StatusOr<std::string> ChatTemplate::Render(absl::Span<const ChatMessage> messages,
                                                 absl::string_view tools_json,
                                                 bool add_generation_prompt) const {
  std::vector<PregateMessage> borrowed;
  borrowed.reserve(messages.size());
  for (const ChatMessage& message : messages) {
    borrowed.push_back({.role = Borrow(message.role), .content = Borrow(message.content)});
  }
  std::string text;
  PREGATE_RETURN_IF_ERROR(StatusOf([&](PregateSink error) {
    return pregate_chat_template_render(handle_,
                                        borrowed.data(),
                                        borrowed.size(),
                                        Borrow(tools_json),
                                        add_generation_prompt,
                                        Into(text),
                                        error);
  }));
  return text;
}

}  // namespace pregate
