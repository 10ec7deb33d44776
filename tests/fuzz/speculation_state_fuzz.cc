// What predictors have learned, from a file with the checksum that belongs to it, and as the state
// of every mode: whatever they load, they go on predicting probabilities.
#include <memory>
#include <vector>

#include "core/expert/expert_predictor.h"
#include "core/expert/speculation_state.h"
#include "core/storage/whole_file.h"
#include "tests/fuzz/fuzz_input.h"

namespace pregate {
namespace {

constexpr PredictorShape kShape = {.num_layers = 3, .num_experts = 4, .experts_per_token = 2};
constexpr char kModel[] = "a-model";

// Two steps of two tokens each.
void Go(ExpertPredictor& predictor) {
  const uint32_t expert_ids[] = {0, 1, 3, 2};
  const uint64_t sequences[] = {7, 8};
  std::vector<ExpertPrediction> predictions;
  for (uint32_t step = 0; step < 2; ++step) {
    for (uint32_t layer = 0; layer < kShape.num_layers; ++layer) {
      const uint32_t positions[] = {step, step};
      RoutedLayer routed;
      routed.layer = layer;
      routed.num_tokens = 2;
      routed.experts_per_token = kShape.experts_per_token;
      routed.expert_ids = expert_ids;
      routed.sequences = sequences;
      routed.positions = positions;
      predictor.Observe(routed);
      for (const uint32_t distance : {1, 2}) {
        predictor.Predict(distance, predictions);
        for (const ExpertPrediction& p : predictions) {
          PREGATE_CHECK(p.expert < kShape.num_experts, p.expert);
          PREGATE_CHECK(p.probability >= 0 && p.probability <= 1, p.probability);
        }
      }
    }
  }
}

void Load(absl::string_view mode, absl::string_view state) {
  const absl::StatusOr<std::unique_ptr<ExpertPredictor>> predictor = MakePredictor(mode, kShape);
  if (!predictor.ok() || *predictor == nullptr || !(*predictor)->LoadState(state).ok()) return;
  const std::string saved = (*predictor)->SaveState();
  const absl::Status again = (*predictor)->LoadState(saved);
  PREGATE_CHECK(again.ok(), again.message());
  Go(**predictor);
  const absl::Status learned = (*predictor)->LoadState((*predictor)->SaveState());
  PREGATE_CHECK(learned.ok(), learned.message());
}

}  // namespace
}  // namespace pregate

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace pregate;
  const absl::string_view input = TextOf(data, size);
  ReadSpeculationState(InputFile(input).path(), kModel, kShape).IgnoreError();
  const InputFile repaired(absl::StrCat(input, LittleEndian(Checksum(input), 8)));
  const absl::StatusOr<LearnedModes> modes = ReadSpeculationState(repaired.path(), kModel, kShape);
  if (modes.ok()) {
    for (const auto& [mode, state] : *modes) Load(mode, state);
  }
  for (const std::string& mode : PredictorNames()) Load(mode, input);
  return 0;
}
