// A GenerateRequest from the wire: what ConvertRequest accepts the engine accepts too, and its
// prompt, given back as an answer, ends at the request's own stop strings.
#include <optional>
#include <string>

#include "absl/strings/match.h"
#include "server/convert.h"
#include "server/text_stream.h"
#include "tests/fuzz/fuzz_input.h"
#include "tests/support/fake_engine.h"

namespace pregate {
namespace {

constexpr char kTemplate[] =
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{{ tools | tojson }}"
    "{% if add_generation_prompt %}<assistant>{% endif %}";

const Engine& FakeEngineOnce() {
  static const auto* const logger = new Logger(LogLevel::kError);
  static auto* const fake = [] {
    FakeEngineOptions options;
    options.eos_token_ids = {kEndTokenId};
    options.chat_template = kTemplate;
    return new FakeEngine(options, *logger);
  }();
  return fake->engine();
}

// `generation`'s prompt as the model's answer.
void Answer(const Generation& generation, const Engine& engine) {
  TextStream stream(engine.tokenizer(), {}, generation.stop);
  std::string text;
  absl::Status status;
  for (const uint32_t id : generation.request.prompt_token_ids) {
    if (status.ok() && !stream.matched().has_value()) status = stream.Append(id);
    text += stream.Take();
  }
  if (status.ok() && !stream.matched().has_value()) status = stream.Finish();
  text += stream.Take();
  for (const std::string& stop : generation.stop)
    PREGATE_CHECK(!absl::StrContains(text, stop), "'", stop, "' in '", text, "'");
}

}  // namespace
}  // namespace pregate

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace pregate;
  const Engine& engine = FakeEngineOnce();
  v1::GenerateRequest wire;
  if (!wire.ParseFromArray(data, static_cast<int>(size))) return 0;
  const absl::StatusOr<Generation> generation =
      ConvertRequest(wire, std::nullopt, /*random_seed=*/1, engine);
  for (const char c : LoggableId(wire.request_id())) PREGATE_CHECK(c > ' ' && c <= '~');
  if (!generation.ok()) {
    const absl::StatusCode code = generation.status().code();
    PREGATE_CHECK(code == absl::StatusCode::kInvalidArgument || code == absl::StatusCode::kNotFound,
                  generation.status().message());
    return 0;
  }
  const absl::Status status =
      ValidateRequest(generation->request, engine.model().vocab_size, engine.model().max_context);
  PREGATE_CHECK(status.ok(), status.message());
  Answer(*generation, engine);
  return 0;
}
