// A model folder's chat template and a conversation: TEMPLATE \0 CONTENT \0 TOOLS. A template that
// begins with '{"' is a tokenizer_config.json that holds it.
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "core/text/chat_template.h"
#include "tests/fuzz/fuzz_input.h"
#include "tests/support/temp_folder.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace pregate;
  std::vector<std::string> parts =
      absl::StrSplit(TextOf(data, size), absl::MaxSplits(absl::ByChar('\0'), 2));
  parts.resize(3);
  const TempFolder folder;
  folder.Write(absl::StartsWith(parts[0], "{\"") ? "tokenizer_config.json" : "chat_template.jinja",
               parts[0]);
  const auto loaded = ChatTemplate::Load(folder.path(), [] { return absl::UnixEpoch(); });
  if (!loaded.ok()) return 0;
  const std::vector<ChatMessage> messages = {{.role = "system", .content = "Be brief."},
                                             {.role = "user", .content = parts[1]},
                                             {.role = "assistant", .content = "Yes."},
                                             {.role = "user", .content = "Why?"}};
  const absl::StatusOr<std::string> once = (*loaded)->Render(messages, parts[2], true);
  const absl::StatusOr<std::string> again = (*loaded)->Render(messages, parts[2], true);
  PREGATE_CHECK(once.status().code() == again.status().code());
  if (once.ok()) PREGATE_CHECK(*once == *again, "'", *once, "', then '", *again, "'");
  return 0;
}
