#include "tests/support/fake_engine.h"

#include <utility>

#include "core/base/check.h"
#include "tests/support/temp_folder.h"
#include "tests/unit/text/tokenizer_files.h"

namespace pregate {

FakeEngine::FakeEngine(const FakeEngineOptions& options, const Logger& logger) {
  Engine::Parts parts;
  parts.model.name = "fake";
  parts.model.family = "fake_family";
  parts.model.dtype = "float32";
  parts.model.vocab_size = options.runner.limits.vocab_size;
  parts.model.max_context = options.runner.limits.max_context;
  parts.model.num_layers = 2;
  parts.model.num_experts = 8;
  parts.model.num_experts_per_token = 1;
  parts.model.num_parameters = 12345;
  parts.model.eos_token_ids = options.eos_token_ids;
  parts.tokenizer = Load(ByteLevelTokenizer());
  if (!options.chat_template.empty()) {
    const TempFolder folder;
    folder.Write("chat_template.jinja", options.chat_template);
    absl::StatusOr<std::unique_ptr<ChatTemplate>> chat_template = ChatTemplate::Load(folder.path());
    PREGATE_CHECK(chat_template.ok(), chat_template.status().message());
    parts.chat_template = *std::move(chat_template);
  }
  auto runner = std::make_unique<FakeRunner>(options.runner);
  runner_ = runner.get();
  parts.runner = std::move(runner);
  auto clock = std::make_unique<FakeClock>();
  clock_ = clock.get();
  parts.clock = std::move(clock);
  absl::StatusOr<std::unique_ptr<Engine>> engine =
      Engine::Assemble(std::move(parts), options.engine, logger);
  PREGATE_CHECK(engine.ok(), engine.status().message());
  engine_ = *std::move(engine);
}

std::vector<uint32_t> FakeEngine::Encode(const std::string& text) const {
  absl::StatusOr<std::vector<uint32_t>> ids = engine_->tokenizer().Encode(text, false);
  PREGATE_CHECK(ids.ok(), ids.status().message());
  return *std::move(ids);
}

std::string FakeEngine::Decode(absl::Span<const uint32_t> ids) const {
  absl::StatusOr<std::string> text = engine_->tokenizer().Decode(ids, true);
  PREGATE_CHECK(text.ok(), text.status().message());
  return *std::move(text);
}

}  // namespace pregate
