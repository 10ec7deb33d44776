// An engine over a FakeRunner and a small byte-level tokenizer: text in, foreseeable text out.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "core/base/log.h"
#include "core/pregate.h"
#include "tests/support/fake_clock.h"
#include "tests/support/fake_runner.h"

namespace pregate {

// The tokenizer is ByteLevelTokenizer (tests/unit/text/tokenizer_files.h): 261 ids, padded to a
// vocabulary of 300. Unscripted answers are of printable ASCII, a token a character.
struct FakeEngineOptions {
  FakeRunner::Options runner = {
      .limits = {.vocab_size = 300, .max_context = 256, .kv_block_size = 4, .num_kv_blocks = 1024},
      .script = {},
      .first_token_id = 0,
      .end_token_id = 94,
      .gate = nullptr,
      .before_step = nullptr,
      .before_token = nullptr};
  EngineOptions engine;
  std::vector<uint32_t> eos_token_ids = {};
  std::string chat_template = "";  // Jinja; "" = none
  // Gives the engine an expert cache, of 2 layers of 8 experts of 4 KiB in 4 slots. Steps do not
  // use it: a test does, as the runner would, through Engine::experts().
  bool keeps_experts = false;
  // With them, what Engine::ProfileDevice has a model compute: FakeProfiledModel's.
  std::function<absl::StatusOr<double>(const std::byte* record, uint32_t rows)> run_expert =
      nullptr;
};

// The id of the model's special token, which has no text to show.
inline constexpr uint32_t kEndTokenId = 259;

// Used by one thread, but for the engine.
class FakeEngine {
 public:
  // `logger` outlives this.
  FakeEngine(const FakeEngineOptions& options, const Logger& logger);

  Engine& engine() { return *engine_; }
  FakeRunner& runner() { return *runner_; }
  FakeClock& clock() { return *clock_; }

  // The ids of a text, and the text of ids.
  std::vector<uint32_t> Encode(const std::string& text) const;
  std::string Decode(absl::Span<const uint32_t> ids) const;

 private:
  FakeClock experts_clock_;
  std::unique_ptr<ExpertOffload> experts_;
  std::unique_ptr<ProfiledModel> profiled_;
  FakeRunner* runner_ = nullptr;  // of engine_, as is the clock
  FakeClock* clock_ = nullptr;
  std::unique_ptr<Engine> engine_;
};

}  // namespace pregate
