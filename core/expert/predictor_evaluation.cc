#include "core/expert/predictor_evaluation.h"

#include <algorithm>

#include "core/base/check.h"
#include "core/expert/prediction_list.h"

namespace pregate {
namespace {

double Share(uint64_t part, uint64_t whole) {
  return whole == 0 ? 0 : static_cast<double>(part) / static_cast<double>(whole);
}

// Sequences side by side.
class Streams {
 public:
  Streams(const RoutingTrace& trace, uint32_t streams) : trace_(trace) {
    while (playing_.size() < streams && Begin()) {
    }
    positions_.resize(playing_.size());
  }

  bool empty() const { return playing_.empty(); }
  uint32_t num_tokens() const { return static_cast<uint32_t>(playing_.size()); }
  const std::vector<uint64_t>& sequences() const { return sequences_; }
  const std::vector<uint32_t>& positions() const { return positions_; }

  // What the present token of each stream chose at `layer`.
  void Fill(uint32_t layer, std::vector<uint32_t>& expert_ids) const {
    expert_ids.clear();
    for (const Playing& playing : playing_) {
      const absl::Span<const uint16_t> chosen =
          trace_.ExpertsOf(trace_.sequences[playing.sequence], playing.token, layer);
      expert_ids.insert(expert_ids.end(), chosen.begin(), chosen.end());
    }
  }

  // To the next token of each.
  void Advance() {
    for (size_t i = playing_.size(); i-- > 0;) {
      Playing& playing = playing_[i];
      if (++playing.token < trace_.num_tokens(trace_.sequences[playing.sequence])) continue;
      playing_.erase(playing_.begin() + static_cast<std::ptrdiff_t>(i));
      sequences_.erase(sequences_.begin() + static_cast<std::ptrdiff_t>(i));
      Begin();
    }
    positions_.clear();
    for (const Playing& playing : playing_) positions_.push_back(playing.token);
  }

 private:
  struct Playing {
    size_t sequence = 0;
    uint32_t token = 0;
  };

  // The next sequence that has tokens; false when there is none.
  bool Begin() {
    for (; next_ < trace_.sequences.size(); ++next_) {
      if (trace_.num_tokens(trace_.sequences[next_]) == 0) continue;
      playing_.push_back({.sequence = next_});
      sequences_.push_back(next_);
      ++next_;
      return true;
    }
    return false;
  }

  const RoutingTrace& trace_;
  size_t next_ = 0;
  std::vector<Playing> playing_;
  std::vector<uint64_t> sequences_;  // of playing_
  std::vector<uint32_t> positions_;  // likewise
};

// Predictions whose layer has not come yet, by layer.
class Scores {
 public:
  Scores(const PredictorEvaluation::Options& options,
         uint32_t num_experts,
         PredictorEvaluation& evaluation)
      : options_(options), evaluation_(evaluation), is_needed_(num_experts) {}

  // `predictions` were made for `layer`, which has now chosen `expert_ids`.
  void Add(uint32_t layer,
           const std::vector<ExpertPrediction>& predictions,
           const std::vector<uint32_t>& expert_ids) {
    std::fill(is_needed_.begin(), is_needed_.end(), false);
    for (const uint32_t expert : expert_ids) is_needed_[expert] = true;
    const auto needed = static_cast<size_t>(std::count(is_needed_.begin(), is_needed_.end(), true));
    PredictorEvaluation::Layer& scores = evaluation_.layers[layer];
    scores.needed += needed;
    scores.found += Found(predictions, needed);
    scores.found_at_twice += Found(predictions, 2 * needed);
    const size_t acted_on = CountToActOn(predictions, options_.aggressiveness, options_.confidence);
    evaluation_.acted_on += acted_on;
    evaluation_.wasted += acted_on - Found(predictions, acted_on);
  }

 private:
  size_t Found(const std::vector<ExpertPrediction>& predictions, size_t first) const {
    size_t found = 0;
    for (size_t i = 0; i < std::min(first, predictions.size()); ++i) {
      if (is_needed_[predictions[i].expert]) ++found;
    }
    return found;
  }

  const PredictorEvaluation::Options& options_;
  PredictorEvaluation& evaluation_;
  std::vector<bool> is_needed_;
};

}  // namespace

double PredictorEvaluation::recall() const {
  uint64_t needed = 0;
  uint64_t found = 0;
  for (const Layer& layer : layers) {
    needed += layer.needed;
    found += layer.found;
  }
  return Share(found, needed);
}

double PredictorEvaluation::recall_at_twice() const {
  uint64_t needed = 0;
  uint64_t found = 0;
  for (const Layer& layer : layers) {
    needed += layer.needed;
    found += layer.found_at_twice;
  }
  return Share(found, needed);
}

double PredictorEvaluation::wasted_share() const { return Share(wasted, acted_on); }

double PredictorEvaluation::seconds_per_layer() const {
  return predictions == 0 ? 0 : seconds / static_cast<double>(predictions);
}

PredictorEvaluation EvaluatePredictor(ExpertPredictor& predictor,
                                      const RoutingTrace& trace,
                                      const Clock& clock,
                                      const PredictorEvaluation::Options& options) {
  PREGATE_CHECK(options.distance > 0 && options.streams > 0);
  PredictorEvaluation evaluation;
  evaluation.layers.resize(trace.num_layers);
  Scores scores(options, trace.num_experts, evaluation);
  std::vector<std::vector<ExpertPrediction>> predictions(trace.num_layers);
  std::vector<uint32_t> expert_ids;
  for (Streams streams(trace, options.streams); !streams.empty(); streams.Advance()) {
    const bool counts = options.counts == nullptr ||
                        std::all_of(streams.sequences().begin(),
                                    streams.sequences().end(),
                                    [&](uint64_t sequence) { return options.counts(sequence); });
    for (uint32_t layer = 0; layer < trace.num_layers; ++layer) {
      streams.Fill(layer, expert_ids);
      if (counts && layer >= options.distance) scores.Add(layer, predictions[layer], expert_ids);
      const RoutedLayer routed = {.layer = layer,
                                  .num_tokens = streams.num_tokens(),
                                  .experts_per_token = trace.experts_per_token,
                                  .expert_ids = expert_ids,
                                  .sequences = streams.sequences(),
                                  .positions = streams.positions(),
                                  .next_expert_ids = {}};
      const TimePoint begun = clock.Now();
      predictor.Observe(routed);
      if (layer + options.distance < trace.num_layers) {
        predictor.Predict(options.distance, predictions[layer + options.distance]);
      }
      evaluation.seconds += ToSeconds(clock.Now() - begun);
      ++evaluation.predictions;
    }
  }
  return evaluation;
}

}  // namespace pregate
