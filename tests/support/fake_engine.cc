#include "tests/support/fake_engine.h"

#include <utility>

#include "core/base/check.h"
#include "core/device/cpu_backend.h"
#include "tests/support/fake_profiled_model.h"
#include "tests/support/temp_folder.h"
#include "tests/support/test_pack.h"
#include "tests/unit/text/tokenizer_files.h"

namespace pregate {
namespace {

constexpr uint64_t kRecordBytes = 4096;

std::unique_ptr<ExpertOffload> MakeExperts(const ModelDescription& model,
                                           const Clock& clock,
                                           const Logger& logger) {
  ExpertPackHeader header;
  header.num_layers = model.num_layers;
  header.num_experts = model.num_experts;
  header.record_bytes = kRecordBytes;
  header.properties = {{"codec", "none"}};
  const TempFolder folder;
  absl::StatusOr<ExpertPack> pack =
      ExpertPack::Open(WriteTestPack(folder / "experts.pack", header));
  PREGATE_CHECK(pack.ok(), pack.status().message());

  ExpertOffload::Options options;
  options.model = {.name = model.name,
                   .num_layers = model.num_layers,
                   .num_experts = model.num_experts,
                   .experts_per_token = model.num_experts_per_token};
  options.slot_needs = {.num_layers = model.num_layers,
                        .num_experts = model.num_experts,
                        .experts_per_token = model.num_experts_per_token,
                        .slot_bytes = header.record_bytes,
                        .budget_bytes = 12 * header.record_bytes};
  absl::StatusOr<SlotPlan> slots = PlanSlots("single_async", "4", options.slot_needs);
  PREGATE_CHECK(slots.ok(), slots.status().message());
  options.slots = *std::move(slots);
  std::vector<ExpertPack> packs;
  packs.push_back(*std::move(pack));
  absl::StatusOr<std::unique_ptr<ExpertOffload>> experts = ExpertOffload::Create(
      std::move(options), std::move(packs), std::make_unique<CpuBackend>(), clock, logger);
  PREGATE_CHECK(experts.ok(), experts.status().message());
  return *std::move(experts);
}

// Half of whose experts fit on the device.
std::unique_ptr<ProfiledModel> MakeProfiled(const ModelDescription& model,
                                            const FakeEngineOptions& options) {
  FakeProfiledModel::Options profiled;
  profiled.device = "a card";
  profiled.encodings = {{.codec = "none", .record_bytes = kRecordBytes}};
  profiled.slots = {.num_layers = model.num_layers,
                    .num_experts = model.num_experts,
                    .experts_per_token = model.num_experts_per_token,
                    .budget_bytes = 8 * kRecordBytes};
  profiled.dense_seconds = 5e-6;
  profiled.run_expert = options.run_expert;
  return std::make_unique<FakeProfiledModel>(std::move(profiled));
}

}  // namespace

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
  if (options.keeps_experts) {
    experts_ = MakeExperts(parts.model, experts_clock_, logger);
    profiled_ = MakeProfiled(parts.model, options);
  }
  parts.experts = experts_.get();
  parts.profiled = profiled_.get();
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
